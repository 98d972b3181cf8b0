"""What one process holds for accounts: made once at start, closed once at the end, passed to every service here."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from carrel_gateway.accounts.links import public_address
from carrel_gateway.accounts.mailing import Mailer
from carrel_gateway.accounts.passwords import Passwords
from carrel_gateway.accounts.refreshing import RefreshTokens
from carrel_gateway.context import ProcessContext
from carrel_gateway.errors import CarrelError, TooMany
from carrel_gateway.settings import Settings

if TYPE_CHECKING:
    from carrel_gateway.accounts.provider import Provider


@dataclass(frozen=True, slots=True)
class Limit:
    """So many times within so many seconds; how often a machine may call is `rates`'s."""

    name: str
    times: int
    seconds: int


LOGIN: Final = Limit("login", 20, 300)
"""Of one address of mail from one machine. A person mistypes less often, and 6,000 guesses a day find no password."""
LOGIN_OF_ADDRESS: Final = Limit("login-address", 200, 300)
"""Of one address of mail from anywhere; well above, so that it is hard to lock somebody out."""
MAIL_TO: Final = Limit("mail-to", 5, 3600)
"""Mails to one address that anybody can ask for."""
CALLBACK: Final = "/api/auth/oidc/callback"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a login comes from."""

    kind: str
    """`browser`, whose refresh token is a cookie, or `program`."""
    agent: str
    """What it says that it is."""
    address: str
    """Of the connection; no header that a client can write."""

    @property
    def named(self) -> str:
        """What is stored with a login."""
        return f"{self.kind}: {self.agent}"


class Works:
    """What is done after the answers of requests."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin; what goes wrong is logged."""
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def done(self) -> None:
        """Wait until nothing is being done."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except CarrelError as error:
        _log.warning("not done after the answer", code=error.code)
    except Exception:  # noqa: BLE001 - there is nobody to raise it to
        _log.exception("not done after the answer")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts."""

    context: ProcessContext
    passwords: Passwords
    mailer: Mailer
    refresh: RefreshTokens
    works: Works
    provider: Provider | None
    """Whom people sign in with, where one is set."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something after the answer, so that its time tells nothing."""
        self.works.spawn(work)

    async def limit(self, limit: Limit, *subject: str) -> None:
        """Count one more.

        Raises
        ------
        TooMany
            That is more than the limit allows.
        """
        # Not as it is: addresses of mail are not for whoever may look into Redis.
        named = hashlib.sha256("\0".join(subject).encode("utf-8", "surrogatepass")).hexdigest()
        key = f"{limit.name}:{named}"
        wait = math.ceil(await self.context.windows.hit(key, limit=limit.times, seconds=limit.seconds))
        if wait:
            raise TooMany(
                f"that was tried too often; try again in {wait} s", code="too_many_attempts", retry_after_seconds=wait
            )


@asynccontextmanager
async def open_parts(context: ProcessContext) -> AsyncGenerator[Parts]:
    """Make the parts and begin to send mail.

    Raises
    ------
    MailSettingsUnusable
        The settings of mail cannot be used.
    ProviderSettingsUnusable
        Those of the provider cannot.
    """
    passwords, mailer, works = Passwords(), Mailer.of(context.settings), Works()
    provider = await asyncio.to_thread(_provider, context.settings)
    mailer.start()
    try:
        yield Parts(context, passwords, mailer, RefreshTokens(context.secrets), works, provider)
    finally:
        if provider:
            await provider.aclose()
        await works.done()
        await mailer.aclose()
        await passwords.aclose()


def _provider(settings: Settings) -> Provider | None:
    if not settings.oidc_issuer and not settings.oidc_client_id:
        return None
    from carrel_gateway.accounts.provider import Provider  # noqa: PLC0415  its libraries are a tenth of a start

    return Provider(settings, f"{public_address(settings)}{CALLBACK}")
