"""Mail, through a real server of mail on loopback, and into files.

Plan: a mail arrives as it was written, with the sender of the settings; a server that is busy or cut off is asked
again; one that goes on refusing, or is not there, is given up, and the next mail goes through; passwords go to the
server, but to another machine over TLS alone; files are private; too many are dropped; logs name no address.
"""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager
from pathlib import Path

import aiosmtplib
import pytest
import structlog
from prometheus_client import REGISTRY
from tests.support.mailbox import mails
from tests.support.smtp_server import smtp_server

from carrel_gateway.accounts import texts
from carrel_gateway.accounts.mailing import Mailer, MailSettingsUnusable, Outbox, Smtp
from carrel_gateway.settings import Settings

TO = "ada@example.org"
MAIL = texts.reset(TO, "http://localhost:8000/account#reset=k1." + "x" * 400, 60)


def settings(tmp_path, **named) -> Settings:
    return Settings(_env_file=None, **{"data_dir": tmp_path, **named})


@asynccontextmanager
async def started(mailer: Mailer):
    mailer.start()
    try:
        yield mailer
    finally:
        await mailer.aclose()


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("carrel_mails_total", {"kind": "reset", "outcome": outcome}) or 0.0


async def test_a_mail_arrives_as_it_was_written(tmp_path):
    async with smtp_server() as server:
        url = server.url.replace("://", "://carrel:p%40ss@")
        async with started(Mailer.of(settings(tmp_path, smtp_url=url, mail_from="Carrel <no@example.org>"))) as mailer:
            mailer.post(MAIL)
            await mailer.sent()
    (message,) = server.messages
    assert server.recipients == [TO]
    assert server.credentials == [("carrel", "p@ss")]
    assert (message["From"], message["To"], message["Subject"]) == ("Carrel <no@example.org>", TO, MAIL.subject)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content().replace("\r\n", "\n") == MAIL.text
    assert not (tmp_path / "outbox").exists()


@pytest.mark.parametrize("failures", [["451 later"], ["cut"], ["451 later", "cut"]])
async def test_a_server_that_is_busy_is_asked_again(failures):
    before = counted("sent")
    async with smtp_server() as server:
        server.failures = list(failures)
        async with started(Mailer(Smtp(server.url), "carrel@example.org", pause_seconds=0)) as mailer:
            mailer.post(MAIL)
            await mailer.sent()
        assert len(server.messages) == 1
    assert counted("sent") == before + 1


async def test_one_that_goes_on_refusing_is_given_up_and_the_next_mail_goes_through():
    before = counted("failed")
    async with smtp_server() as server:
        server.failures = ["550 no"] * 3
        with structlog.testing.capture_logs() as logged:
            async with started(Mailer(Smtp(server.url), "carrel@example.org", pause_seconds=0)) as mailer:
                mailer.post(MAIL)
                mailer.post(texts.known("bob@example.org", "http://localhost"))
                await mailer.sent()
        assert server.recipients == ["bob@example.org"]
    assert counted("failed") == before + 1
    assert TO not in repr(logged)
    assert "bob@" not in repr(logged)


async def test_a_server_that_is_not_there_is_given_up():
    async with smtp_server() as server:
        url = server.url
    before = counted("failed")
    async with started(Mailer(Smtp(url, timeout_seconds=5), "carrel@example.org", pause_seconds=0)) as mailer:
        mailer.post(MAIL)
        await mailer.sent()
    assert counted("failed") == before + 1


async def test_a_password_goes_to_another_machine_over_tls_alone(monkeypatch):
    """The server does not offer TLS, and stands for one elsewhere; it must not see the password."""
    monkeypatch.setattr("carrel_gateway.accounts.mailing.is_loopback", lambda _: False)
    async with smtp_server() as server:
        carrier = Smtp(server.url.replace("://", "://carrel:secret@"))
        with pytest.raises(aiosmtplib.SMTPException):
            await carrier.carry(Mailer(carrier, "carrel@example.org")._message(MAIL))
    assert (server.credentials, server.messages) == ([], [])


async def test_files_are_private_and_in_order(tmp_path):
    async with started(Mailer.of(settings(tmp_path))) as mailer:
        for number in range(3):
            mailer.post(texts.reset(TO, f"http://localhost/{number}", 60))
        await mailer.sent()
    found = mails(tmp_path, TO)
    assert [f"http://localhost/{number}" in mail.get_content() for number, mail in enumerate(found)] == [True] * 3
    assert modes(tmp_path / "outbox") == (0o700, {0o600})


def modes(folder: Path):
    return stat.S_IMODE(folder.stat().st_mode), {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_too_many_that_wait_are_dropped(tmp_path):
    before = counted("dropped")
    mailer = Mailer(Outbox(tmp_path), "carrel@example.org")
    for _ in range(1005):
        mailer.post(MAIL)
    assert counted("dropped") == before + 5


@pytest.mark.parametrize(
    "named",
    [
        {"smtp_url": "http://127.0.0.1"},
        {"smtp_url": "smtp://"},
        {"smtp_url": "smtp://host:port"},
        {"mail_from": "Carrel"},
        {"mail_from": "carrel@example.org\r\nBcc: all@example.org"},
    ],
)
def test_settings_that_cannot_be_used(tmp_path, named):
    with pytest.raises(MailSettingsUnusable) as caught:
        Mailer.of(settings(tmp_path, **named))
    assert "CARREL_SMTP_URL" in caught.value.message or "CARREL_MAIL_FROM" in caught.value.message
