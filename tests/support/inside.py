"""A gateway inside this process: its application, driven as a server would drive it, on the event loop of a thread.

For tests that ask very many things of it, and look into its database between; whatever needs a port is elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import httpx
import orjson
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from carrel_gateway.context import ProcessContext
from carrel_gateway.identity.authenticator import Authenticator
from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings

T = TypeVar("T")
SECONDS = 30.0


class Refused(Exception):
    """The socket was closed, before or after it was accepted."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Socket:
    """The client's end of a WebSocket."""

    def __init__(self, portal: BlockingPortal, app: FastAPI, path: str, headers: dict[str, str]) -> None:
        self._portal = portal
        self._inward: asyncio.Queue[Any] = asyncio.Queue()
        self._outward: asyncio.Queue[Any] = asyncio.Queue()
        raw = [(name.lower().encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
        offered = headers.get("Sec-WebSocket-Protocol", "")
        path, _, query = path.partition("?")
        self._scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": raw,
            "subprotocols": [part.strip() for part in offered.split(",") if part.strip()],
            "scheme": "ws",
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self.subprotocol: str | None = None

    async def open(self) -> None:
        await self._inward.put({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._app(self._scope, self._inward.get, self._outward.put))
        self.subprotocol = (await self._next())["subprotocol"]

    async def _next(self) -> Any:
        message = await asyncio.wait_for(self._outward.get(), SECONDS)
        if message["type"] == "websocket.close":
            raise Refused(message.get("code", 1000), message.get("reason") or "")
        return message

    def send(self, document: Any) -> None:
        """Send a frame."""
        frame = {"type": "websocket.receive", "text": orjson.dumps(document).decode()}
        self._portal.call(self._inward.put, frame)

    def receive(self) -> Any:
        """Return the next frame."""
        return orjson.loads(self._portal.call(self._next)["text"])

    async def close(self) -> None:
        await self._inward.put({"type": "websocket.disconnect", "code": 1000})
        if self._task:
            await asyncio.wait([self._task], timeout=SECONDS)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


class Inside:
    """The gateway and what asks it."""

    def __init__(self, portal: BlockingPortal, app: FastAPI) -> None:
        self._portal = portal
        self.app = app
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

    @property
    def context(self) -> ProcessContext:
        return self.app.state.gateway.context

    @property
    def authenticator(self) -> Authenticator:
        return self.app.state.gateway.authenticator

    def call(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **options: Any) -> T:
        """Do something in the gateway's own event loop."""
        return self._portal.call(lambda: work(*arguments, **options))

    def request(self, method: str, path: str, *, credential: str | None = None, **options: Any) -> httpx.Response:
        """Ask for something, with a key or a token."""
        headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {credential}"} if credential else {})}
        return self.call(self.client.request, method, path, headers=headers, **options)

    @contextmanager
    def socket(self, path: str, *, credential: str | None = None, **headers: str) -> Iterator[Socket]:
        """Open a WebSocket.

        Raises
        ------
        Refused
            It was closed instead.
        """
        if credential:
            headers["Authorization"] = f"Bearer {credential}"
        made = self.call(_socket, self._portal, self.app, path, headers)
        try:
            self.call(made.open)
            yield made
        finally:
            self.call(made.close)


async def _socket(portal: BlockingPortal, app: FastAPI, path: str, headers: dict[str, str]) -> Socket:
    return Socket(portal, app, path, headers)


@contextmanager
def inside(settings: Settings) -> Iterator[Inside]:
    """Start a gateway in this process."""
    app = create_app(settings)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        yield Inside(portal, app)
