"""Sends mail in the background: by SMTP or, without a server, into files of the data folder's `outbox`.

What is asked for returns at once, so that an answer's time tells nothing of whom it concerned. A mail that waits when
the process ends is lost; whoever misses it asks again.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog

from carrel_gateway.accounts import metrics
from carrel_gateway.accounts.texts import Mail
from carrel_gateway.errors import CarrelError
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_gateway.web.guards import is_loopback

OUTBOX: Final = "outbox"
WAITING: Final = 1000
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 30.0

_log = structlog.get_logger(__name__)


class MailSettingsUnusable(CarrelError):
    """`CARREL_SMTP_URL` or `CARREL_MAIL_FROM` cannot be used."""

    code = "mail_settings_unusable"


class Carrier(Protocol):
    """What takes a mail away."""

    async def carry(self, message: EmailMessage) -> None:
        """Take it, or raise `OSError` or `aiosmtplib.SMTPException`."""
        ...


class Outbox:
    """Files, one for each mail, that the owner of the data folder reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def carry(self, message: EmailMessage) -> None:
        """Write it, readable by the owner alone."""
        await asyncio.to_thread(self._write, bytes(message))

    def _write(self, raw: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = new_id().hex
        part = self._folder / f".{name}"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
        part.rename(self._folder / f"{name}.eml")


class Smtp:
    """A server of mail: `smtp://user:password@host:587`, or `smtps://` for TLS from the first byte.

    A password goes to another machine over TLS only.
    """

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _unusable() from error
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise _unusable()
        self._host = parts.hostname
        self._tls = parts.scheme == "smtps"
        self._port = port or (465 if self._tls else 587)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._timeout_seconds = timeout_seconds

    async def carry(self, message: EmailMessage) -> None:
        """Hand it to the server."""
        # None means: TLS where the server offers it.
        must = None if is_loopback(self._host) or self._password is None else True
        await aiosmtplib.send(
            message,
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password,
            use_tls=self._tls,
            start_tls=False if self._tls else must,
            timeout=self._timeout_seconds,
        )


class Mailer:
    """The queue of mails of one process, and who takes them."""

    def __init__(self, carrier: Carrier, sender: str, *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._carrier = carrier
        self._sender = sender
        self._pause_seconds = pause_seconds
        self._waiting: asyncio.Queue[Mail] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Mailer:
        """Return the one that the settings ask for.

        Raises
        ------
        MailSettingsUnusable
            The settings cannot be used.
        """
        sender = settings.mail_from
        if "@" not in sender or "\n" in sender or "\r" in sender:
            raise MailSettingsUnusable("CARREL_MAIL_FROM is no address of mail; write `Name <carrel@example.org>`")
        if settings.smtp_url is None or not settings.smtp_url.get_secret_value():
            return cls(Outbox(settings.data_dir / OUTBOX), sender)
        return cls(Smtp(settings.smtp_url.get_secret_value()), sender)

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_for_ever(), name="mails")

    def post(self, mail: Mail) -> None:
        """Have a mail sent; dropped when too many wait."""
        try:
            self._waiting.put_nowait(mail)
        except asyncio.QueueFull:
            metrics.MAILS.labels(mail.kind, "dropped").inc()
            _log.warning("mail dropped", kind=mail.kind.value)

    async def sent(self) -> None:
        """Wait until nothing waits."""
        await self._waiting.join()

    async def aclose(self) -> None:
        """Stop; what waits is lost."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _send_for_ever(self) -> None:
        while True:
            mail = await self._waiting.get()
            try:
                await self._send(mail)
            except Exception:  # noqa: BLE001 - the next mail must be sent
                metrics.MAILS.labels(mail.kind, "failed").inc()
                _log.exception("mail not sent", kind=mail.kind.value)
            finally:
                self._waiting.task_done()

    async def _send(self, mail: Mail) -> None:
        message = self._message(mail)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._carrier.carry(message)
            except (OSError, aiosmtplib.SMTPException) as error:
                # The error's text may hold the address; its class says enough.
                _log.warning("mail not sent", kind=mail.kind.value, attempt=attempt, error=type(error).__name__)
                if attempt < _ATTEMPTS:
                    await asyncio.sleep(self._pause_seconds)
            else:
                metrics.MAILS.labels(mail.kind, "sent").inc()
                _log.info("mail sent", kind=mail.kind.value)
                return
        metrics.MAILS.labels(mail.kind, "failed").inc()

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain="carrel.invalid")
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday answers
        message.set_content(mail.text)
        return message


def _unusable() -> MailSettingsUnusable:
    return MailSettingsUnusable("CARREL_SMTP_URL cannot be used; write `smtp://user:password@host:587` or `smtps://…`")
