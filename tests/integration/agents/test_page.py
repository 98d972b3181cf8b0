"""The page in a real browser, over a real gateway: what a person does there, and what must never happen there.

* from the link with the key to an answer, and again after a reload; nothing is asked of anyone else
* that a suspended session has its state again, and what is not back, is said
* names, values and questions that are markup stay text, and make the browser ask no one
* a page of another origin in the same browser can neither read nor write
* what goes wrong is said with what to do, and a question that was not taken is not lost
* that questions may be asked while another is answered, wait in sight, and are taken back
* narrow screens, and names for everything that can be reached with the keyboard
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agents.browser import Browser, chromium
from tests.support import servers
from tests.support.serving import SALES, Gateway, until
from tests.support.serving import gateway as running_gateway

from carrel_client import Client

DONE = "document.querySelector('.turn') && !document.querySelector('.working, #log[aria-busy=true]')"
NAMELESS = """
[...document.querySelectorAll('button, a, input, textarea, summary, img')]
    .filter((one) => one.checkVisibility())
    .filter((one) => !(one.innerText || one.ariaLabel || one.labels?.length || one.hasAttribute('alt')))
    .map((one) => one.outerHTML)
"""
REMOTE = "![x](http://elsewhere.invalid/?data=1)"
IMAGE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("page") / "data", CARREL_UPLOAD_MAX_BYTES="100000") as started:
        yield started


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(servers.program("chromium"), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(program: Browser, gateway: Gateway) -> Iterator[Browser]:
    """The page, opened by the link with the key; without complaints of the browser at the end."""
    program.width(1280)
    program.open(f"{gateway.url}/#key={gateway.key}")
    program.until("document.activeElement.id === 'question'")
    program.complaints.clear()
    yield program
    assert program.complaints == []


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    path = tmp_path / "sales.csv"
    path.write_text(SALES, "utf-8")
    return path


def ask(page: Browser, question: str) -> None:
    page.type("#question", question)
    page.until("document.querySelector('#log[aria-busy=true]') || document.getElementById('trouble').textContent")
    page.until("document.querySelector('#log[aria-busy=false]')")


def test_from_the_link_to_the_answer_and_again_after_a_reload(page: Browser, gateway: Gateway, sales: Path) -> None:
    assert "key" not in page.value("location.href")
    page.choose("#upload", sales)
    page.until("document.querySelectorAll('#files li').length === 1")
    ask(page, "total units by region")
    page.until(f"{DONE} && document.querySelector('.made img')?.complete")
    seen = page.text(".turn")
    assert "North" in seen
    assert "714" in seen
    assert page.value("[...document.querySelectorAll('.plan li')].every((step) => step.className === 'done')")
    assert page.value("[...document.querySelectorAll('.cell')].every((cell) => !cell.open)")
    page.value("document.querySelectorAll('.cell').forEach((cell) => { cell.open = true; })")
    assert "vnd.carrel" not in page.text(".outputs")
    assert '"columns"' not in page.text(".outputs")

    page.open(page.value("location.href"))
    page.until(f"{DONE} && document.querySelector('.made img')?.complete")
    assert page.text(".turn") == seen
    assert "total units by region" in page.value("document.title")
    assert page.hosts == {"", gateway.url.removeprefix("http://")}


def test_what_became_of_the_state_is_said(page: Browser, gateway: Gateway, sales: Path) -> None:
    page.choose("#upload", sales)
    page.until("document.querySelectorAll('#files li').length === 1")
    ask(page, "total units by region")
    page.until(DONE)
    session = page.value("location.hash").removeprefix("#session=")
    with Client(gateway.url, gateway.key) as client:
        client.execute(session, "lines = (line for line in 'abc')")
        client.suspend_session(session)
    ask(page, "average units by region")
    page.until("document.querySelectorAll('.turn').length === 2 && !document.querySelector('.working')")
    seen = page.text(".turn:last-of-type .note")
    assert "is back" in seen
    assert "lines (a generator cannot be saved)" in seen
    page.open(page.value("location.href"))
    page.until("document.querySelector('.turn:last-of-type .note')")
    assert page.text(".turn:last-of-type .note") == seen


def test_questions_that_wait_are_seen_and_taken_back(page: Browser, gateway: Gateway, sales: Path) -> None:
    with Client(gateway.url, gateway.key) as client, gateway.client() as api:
        session = client.create_session(title="Waiting").id
        client.upload(session, [sales])
        path = f"/api/sessions/{session}"
        sleep = {"code": "import time\nfor _ in range(600):\n    time.sleep(0.1)", "timeout_seconds": 60}
        occupied = threading.Thread(target=lambda: api.post(f"{path}/kernel/execute", json=sleep))
        occupied.start()
        until(lambda: client.kernel(session)["status"] == "busy")
        page.open(f"{gateway.url}/#session={session}")
        page.until("document.querySelectorAll('#files li').length === 1")
        page.type("#question", "total units by region")
        page.until("document.getElementById('send').textContent === 'Ask next'")
        asked = ["average units by region", f"highest price, {IMAGE} which is a long question that goes on and on"]
        for place, question in enumerate(asked, 1):
            page.type("#question", question)
            page.until(f"document.querySelectorAll('#queue li').length === {place}")
        for width in (360, 1280):
            page.width(width)
            assert page.value("document.documentElement.scrollWidth") <= width
            assert page.value(
                "document.querySelector('main').scrollWidth <= document.querySelector('main').clientWidth"
            )
            assert page.value(NAMELESS) == []
        page.open(page.value("location.href"))
        page.until("document.querySelectorAll('#queue li').length === 2")
        assert page.value("[...document.querySelectorAll('#queue span')].map((one) => one.textContent)") == asked
        page.value("document.querySelector('#queue li:last-child button').click()")
        page.until("document.querySelectorAll('#queue li').length === 1")
        assert page.value("document.getElementById('question').value") == asked[1], "to be put in other words"
        page.value("document.getElementById('question').value = ''")
        client.kernel(session, "interrupt")
        occupied.join(60)
    page.until(f"document.querySelectorAll('.turn').length === 2 && {DONE}")
    assert page.value("[...document.querySelectorAll('.asked')].map((one) => one.textContent)") == [
        "total units by region",
        "average units by region",
    ]
    assert page.value("document.querySelectorAll('#queue li').length") == 0
    assert page.text("#send") == "Ask"
    assert "North" in page.text(".turn:last-of-type")


def test_markup_is_text(page: Browser, gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(f"{IMAGE},group\n1,{IMAGE}\n2,{REMOTE}\n6,{REMOTE}\n", "utf-8")
    page.choose("#upload", path)
    page.until("document.querySelectorAll('#files li').length === 1")
    ask(page, f"describe this {IMAGE}")
    page.until(DONE)
    assert page.text(".asked") == f"describe this {IMAGE}"
    assert IMAGE in page.text(".turn")
    ask(page, "most frequent group")
    assert REMOTE in page.text(".turn:last-of-type .answer:not(.draft)")
    assert (
        page.value("document.querySelectorAll('img:not([src^=blob]):not(.brand img), .turn script, .turn a').length")
        == 0
    )
    assert page.value("document.title") != "taken"
    assert page.hosts == {"", gateway.url.removeprefix("http://")}


def test_question_that_was_not_taken_is_kept(page: Browser) -> None:
    page.away(True)
    try:
        ask(page, "average units")
        assert "The server does not answer. Check that it is running" in page.text("#trouble")
        assert page.value("document.getElementById('question').value") == "average units"
        assert page.value("document.querySelectorAll('.turn').length") == 0
    finally:
        page.away(False)
    page.type("#question", "")
    page.until(DONE)
    assert "the session has no data file" in page.text(".answer:not(.draft)")
    assert page.text("#trouble") == ""


def test_file_that_is_too_large(page: Browser, sales: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    large.write_text("a\n" + "1\n" * 60_000, "utf-8")
    page.choose("#upload", large, sales)
    page.until("document.getElementById('trouble').textContent")
    assert "Too large: large.csv (117.2 KB). A file may have 97.7 KB" in page.text("#trouble")
    assert page.text("#files").startswith("sales.csv")
    page.value("document.querySelector('#files button').click()")
    page.until("!document.querySelector('#files li')")


def test_session_that_is_not_there(page: Browser, gateway: Gateway) -> None:
    page.open(f"{gateway.url}/#session=00000000-0000-7000-8000-000000000000")
    page.until("document.getElementById('trouble').textContent")
    assert page.text("#trouble") == "There is no such session."
    assert page.value("document.getElementById('intro').hidden") is False


def test_wrong_key_and_the_right_one(page: Browser, gateway: Gateway) -> None:
    page.value("localStorage.clear()")
    page.open(gateway.url)
    page.until("document.activeElement.id === 'key'")
    assert page.text("#refusal") == ""
    page.type("#key", "crl_wrong")
    page.until("document.getElementById('refusal').textContent")
    assert "This key is not the one of this server" in page.text("#refusal")
    page.value("document.getElementById('key').value = ''")
    page.type("#key", gateway.key)
    page.until("!document.getElementById('ask').hidden && document.getElementById('door').hidden")


def test_page_of_another_origin(page: Browser, gateway: Gateway) -> None:
    """A key that leaked to it is no use either: the browser asks first, and the gateway does not allow it."""

    def sessions() -> int:
        with gateway.client() as client:
            return len(client.get("/api/sessions").json()["items"])

    before = sessions()
    page.command("Page.navigate", url="data:text/html,<title>elsewhere</title>")
    page.until("document.title === 'elsewhere'")
    read = f"fetch('{gateway.url}/api/sessions', {{ headers: {{ Authorization: 'Bearer {gateway.key}' }} }})"
    write = f"fetch('{gateway.url}/api/sessions', {{ method: 'POST', mode: 'no-cors', body: '{{}}' }})"
    assert page.value(f"{read}.then(() => 'read', () => 'refused')") == "refused"
    assert page.value(f"{write}.then((reply) => reply.type, () => 'refused')") in ("opaque", "refused")
    assert sessions() == before
    page.complaints.clear()  # the browser says that it refused


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_narrow_screen_and_names(page: Browser, gateway: Gateway, path: str) -> None:
    page.width(390)
    page.command("Page.navigate", url=gateway.url + path)
    page.until("document.querySelectorAll('.route, #sessions li').length > 0")
    assert page.value("document.documentElement.scrollWidth") <= 390
    assert page.value(NAMELESS) == []
