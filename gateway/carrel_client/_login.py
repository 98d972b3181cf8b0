"""Presents a login's access token, and exchanges it for the next one before it ends. Stores nothing by itself.

A refresh token is good once: a second use of it ends the login. So an exchange is done by one at a time, and what came
of it is kept (`LoginStore.keep`) before it is used.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import httpx

from carrel_client._calls import check, login_of, refresh
from carrel_client._errors import ApiProblem, LoginEnded
from carrel_client._models import Login

EARLY: Final = timedelta(seconds=60)
"""An access token that ends within this is exchanged: the server's clock may be a little ahead."""


class LoginStore(Protocol):
    """Where a login is kept between uses, for programs that share it."""

    def hold(self) -> AbstractContextManager[Login]:
        """Keep others from exchanging the token meanwhile, and return the login as it is now."""
        ...

    def keep(self, login: Login) -> None:
        """Keep the login that an exchange gave; called while it is held."""
        ...


class InMemory:
    """The login of one program."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._lock = threading.Lock()

    @contextmanager
    def hold(self) -> Generator[Login]:
        """Return the login; others wait."""
        with self._lock:
            yield self._login

    def keep(self, login: Login) -> None:
        """Take the newest."""
        self._login = login


class LoginAuth(httpx.Auth):
    """Authenticates each request of a client with a login."""

    def __init__(self, base_url: str, store: LoginStore) -> None:
        self._address = base_url.rstrip("/")
        self._store = store
        self._turn = asyncio.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Exchange the token where it is about to end, then send the request."""
        with self._store.hold() as login:
            if _ends(login):
                response = yield self._exchange(login)
                response.read()
                current = _exchanged(response)
                self._store.keep(current)
            else:
                current = login
        request.headers["Authorization"] = f"Bearer {current.access_token}"
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same; the store is asked for the login at once, so its lock must be free within a moment."""
        async with self._turn:
            with self._store.hold() as login:
                if _ends(login):
                    response = yield self._exchange(login)
                    await response.aread()
                    current = _exchanged(response)
                    self._store.keep(current)
                else:
                    current = login
        request.headers["Authorization"] = f"Bearer {current.access_token}"
        yield request

    def _exchange(self, login: Login) -> httpx.Request:
        call = refresh(login.refresh_token)
        return httpx.Request(call.method, f"{self._address}{call.path}", json=call.json)


def _ends(login: Login) -> bool:
    return login.expires_at - datetime.now(UTC) < EARLY


def _exchanged(response: httpx.Response) -> Login:
    try:
        return login_of(check(response))
    except ApiProblem as error:
        if error.status == 401:
            raise LoginEnded("this login has ended; log in again") from error
        raise
