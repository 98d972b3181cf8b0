"""A page that a person has open in a real browser, and their embedded gateway (threat 60).

Plan: a page of another origin on this machine, which even knows the key and has a ticket, reads nothing with fetch,
makes nothing with a form or a request that needs no permission, and opens no WebSocket; a name that a foreign page has
rebound to this machine is not answered; the gateway's own page can do all of it, so the attempts could work.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.integration.agents.browser import chromium
from tests.support.servers import program

UNKNOWN = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
ATTEMPT = """(async () => {
  const done = {};
  const ask = async (name, path, options) => {
    try { const answer = await fetch(URL_ + path, options); done[name] = answer.type + answer.status; }
    catch (error) { done[name] = 'refused'; }
  };
  const key = {Authorization: 'Bearer ' + KEY_};
  await ask('read', '/api/models', {headers: key});
  await ask('info', '/info', {});
  const json = {...key, 'Content-Type': 'application/json'};
  await ask('make', '/api/sessions', {method: 'POST', headers: json, body: '{}'});
  await ask('blind', '/api/sessions', {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'});
  done.socket = await new Promise((resolve) => {
    const address = URL_.replace('http', 'ws') + '/ws/chat/SESSION_';
    const socket = new WebSocket(address, ['carrel.v1', 'carrel.ticket.TICKET_']);
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('refused');
  });
  return done;
})()"""
FORM = """(() => {
  const form = document.createElement('form');
  form.method = 'POST'; form.action = URL_ + '/api/sessions'; form.enctype = 'text/plain';
  document.body.append(form); form.submit();
})()"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title><body>foreign</body>")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def foreign():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    rebound = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    with chromium(program("chromium"), tmp_path_factory.mktemp("profile"), rebound) as started:
        yield started


def visit(browser, url):
    browser.command("Page.navigate", url=url)
    browser.until("document.readyState === 'complete' && document.body !== null")


def attempt(browser, script, gateway, api, session=UNKNOWN):
    ticket = api.post("/api/tickets").json()["ticket"]
    text = (
        script.replace("TICKET_", ticket)
        .replace("URL_", json.dumps(gateway.url))
        .replace("KEY_", json.dumps(gateway.key))
    )
    return browser.value(text.replace("SESSION_", session))


def test_a_foreign_page_reads_nothing_and_does_nothing(gateway, api, browser, foreign, session):
    before = api.get("/api/sessions").json()
    visit(browser, foreign)
    done = attempt(browser, ATTEMPT, gateway, api, session.rsplit("/", 1)[1])
    assert done.pop("blind") in {"opaque0", "refused"}
    assert set(done.values()) == {"refused"}, done
    attempt(browser, FORM, gateway, api)
    browser.until("document.body.innerText.includes('origin_not_allowed')")
    assert api.get("/api/sessions").json() == before


def test_a_rebound_name_is_not_answered(gateway, browser):
    visit(browser, gateway.url.replace("127.0.0.1", "rebound.example") + "/api/models")
    assert "host_not_allowed" in browser.text("body")


def test_the_own_page_can_do_all_of_it(gateway, api, browser, session):
    visit(browser, gateway.url)
    done = attempt(browser, ATTEMPT, gateway, api, session.rsplit("/", 1)[1])
    assert (done["read"], done["make"], done["socket"]) == ("basic200", "basic201", "open")
