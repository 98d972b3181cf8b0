"""The page of an account in a real browser: the link of the mail, the way into the sessions and back, the end.

No script can read the refresh token, and the link's token does not stay in the address.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agents.browser import Browser, chromium
from tests.support import servers
from tests.support.mailbox import mails
from tests.support.serving import gateway as running_gateway
from tests.support.serving import until

EMAIL = "ada@example.org"
PASSWORD = "correct horse battery"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with chromium(servers.program("chromium"), tmp_path / "profile") as opened:
        yield opened


def shown(section: str) -> str:
    return f"document.querySelector('#{section}') && !document.querySelector('#{section}').hidden"


def click(browser: Browser, selector: str) -> None:
    browser.value(f"document.querySelector({selector!r}).click()")


def go(browser: Browser, address: str) -> None:
    for url in ("about:blank", address):  # anew, also where only the fragment differs
        browser.command("Page.navigate", url=url)
    browser.until("location.href !== 'about:blank' && document.readyState === 'complete'")


def link_of(data_dir: Path) -> str:
    until(lambda: mails(data_dir, EMAIL))
    return next(word for word in mails(data_dir, EMAIL)[-1].get_content().split() if word.startswith("http"))


def test_from_the_mail_to_the_sessions_and_out_again(browser: Browser, tmp_path: Path) -> None:
    port = servers.free_port()
    told = {"CARREL_REGISTRATION": "open", "CARREL_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    with running_gateway(tmp_path / "data", port=port, **told) as gateway:
        go(browser, f"{gateway.url}/account")
        browser.until(shown("login"))
        browser.value(f"document.querySelector('[name=email]').value = {EMAIL!r}")
        click(browser, "#register")
        browser.until("document.querySelector('#told').textContent.includes('mail')")
        go(browser, link_of(gateway.data_dir))
        browser.until(shown("setup"))
        assert browser.value("location.href") == f"{gateway.url}/account"
        browser.value("document.querySelector('#setup [name=name]').value = 'Ada'")
        browser.value(f"document.querySelector('#setup [name=password]').value = {PASSWORD!r}")
        click(browser, "#setup button")
        browser.until(shown("me"))
        assert browser.text("#name") == "Ada"
        assert browser.value("document.cookie") == ""
        assert "crf_" not in browser.value("JSON.stringify({...localStorage, ...sessionStorage})")
        browser.value("document.querySelector('#make [name=name]').value = 'for the night'")
        click(browser, "#make button")
        browser.until(shown("made"))
        key = browser.text("#made code")
        with gateway.client(key=key) as program:
            assert program.get("/api/me").json()["email"] == EMAIL
            session_id = program.post("/api/sessions", json={}).json()["id"]
            assert program.post(f"/api/sessions/{session_id}/chat", json={"message": "Hello"}).status_code == 200
            limit = {"scope": "tenant", "resource": "sessions", "limit": 3}
            assert program.put("/api/quotas", json=limit).status_code == 200
        browser.until("document.querySelectorAll('#keys li').length === 1")
        click(browser, "#keys button")
        browser.until("document.querySelectorAll('#keys li').length === 0")
        with gateway.client(key=key) as program:
            assert program.get("/api/me").status_code == 401
        assert browser.text("#unused") == "No model was called this month."
        go(browser, f"{gateway.url}/")
        browser.until("document.activeElement.id === 'question'")  # the desk is open, without a key
        go(browser, f"{gateway.url}/account")
        browser.until(shown("me"))
        browser.until(shown("usage"))
        assert browser.text("#quotas li") == "1 of 3 sessions that are not archived (of the tenant)"
        assert browser.text("#usage tbody").split()[:2] == ["demo/analyst", "1"]
        click(browser, "#logout")
        browser.until(shown("login"))
        go(browser, f"{gateway.url}/")
        browser.until(shown("door"))
