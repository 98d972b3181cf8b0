"""The page of one's account in a real browser: from the registration to the end of the login.

Plan: register, open the link of the mail, set up, use the desk under the login and again after a reload; make a key;
log out, and the desk has its door again; log in; choose another password by mail; what is wrong is said; no script can
read the refresh token, and the address keeps no token; every control has a name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.integration.agents.browser import Browser, chromium
from tests.integration.agents.test_page import NAMELESS
from tests.support import servers
from tests.support.mailbox import link_token, mails
from tests.support.serving import Gateway, until
from tests.support.serving import gateway as running_gateway

EMAIL = "ada@example.org"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("account") / "data", CARREL_REGISTRATION="open") as started:
        yield started


@pytest.fixture
def page(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(servers.program("chromium"), tmp_path_factory.mktemp("profile")) as browser:
        browser.width(1280)
        yield browser
        assert browser.complaints == []


def fill(page: Browser, form: str, **fields: str) -> None:
    for name, value in fields.items():
        page.value(f"document.querySelector({json.dumps(f'#{form} [name={name}]')}).focus()")
        page.command("Input.insertText", text=value)
    page.value(f"document.querySelector('#{form} button').click()")


def seen(section: str) -> str:
    return f"!document.getElementById('{section}').hidden"


def mail_token(gateway: Gateway, kind: str, count: int) -> str:
    until(lambda: len(mails(gateway.data_dir, EMAIL)) >= count)
    return link_token(mails(gateway.data_dir, EMAIL)[-1], kind)


def test_from_the_registration_to_the_end_of_the_login(page: Browser, gateway: Gateway):
    account = f"{gateway.url}/account"
    page.open(account, has="log-in")
    page.until(seen("log-in"))
    assert page.value(NAMELESS) == []
    fill(page, "register-form", email=EMAIL)
    page.until("document.getElementById('told').textContent.includes('mail')")
    page.open(f"{account}#setup={mail_token(gateway, 'setup', 1)}", has="set-up")
    page.until(seen("set-up"))
    assert page.value("location.hash") == ""
    fill(page, "set-up-form", name="Ada", password="correct horse battery")
    page.until("location.pathname === '/' && document.activeElement?.id === 'question'")
    assert page.value("document.cookie") == ""
    assert page.value("JSON.stringify({...localStorage})") == '{"carrel.login":"yes"}'
    page.open(f"{gateway.url}/")
    page.until("document.activeElement?.id === 'question'")
    assert page.text("#forget") == "Log out"

    page.open(account, has="mine")
    page.until(seen("mine"))
    assert page.text("#who") == EMAIL
    fill(page, "key-form", name="for the night")
    page.until(seen("made"))
    key = page.text("#made code")
    with gateway.client(key=key) as client:
        assert client.get("/api/me").json()["email"] == EMAIL
    page.until("document.querySelectorAll('#keys li').length === 1")
    assert page.value(NAMELESS) == []
    page.value("document.querySelector('#keys button').click()")
    page.until("document.querySelectorAll('#keys li').length === 0")
    with gateway.client(key=key) as client:
        assert client.get("/api/me").status_code == 401

    page.value("document.getElementById('log-out').click()")
    page.until(seen("log-in"))
    page.open(f"{gateway.url}/")
    page.until(seen("door"))
    page.complaints.clear()

    page.open(account, has="log-in")
    page.until(seen("log-in"))
    fill(page, "log-in-form", email=EMAIL, password="wrong horse battery")
    page.until("document.getElementById('trouble').textContent !== ''")
    page.value("document.getElementById('forgot').click()")
    page.until("document.getElementById('told').textContent.includes('mail')")
    page.open(f"{account}#reset={mail_token(gateway, 'reset', 2)}", has="reset")
    page.until(seen("reset"))
    fill(page, "reset-form", password="another long password")
    page.until(seen("log-in"))
    fill(page, "log-in-form", email=EMAIL, password="another long password")
    page.until("location.pathname === '/' && document.activeElement?.id === 'question'")
