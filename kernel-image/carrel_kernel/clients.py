"""Jupyter clients of kernels: their sockets to the process, what waits for them, and who comes back.

A client is a WebSocket's, and outlives it when it gave a `session_id`: what the kernel sends while it is away waits for
it, within bounds, and so do input requests. A client that returns gets all of it first. Framing is `channels`'.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import Final

import zmq

from carrel_kernel.backlog import Backlog, message_of
from carrel_kernel.connection import Channel, KernelConnection
from carrel_kernel.errors import KernelUnavailable, TooManyClients
from carrel_kernel.kernel import Kernel
from carrel_kernel.live import LAST_OUTPUT_SECONDS, LiveKernel
from carrel_kernel.metrics import Metrics

CONNECTED_BYTES: Final = 64 * 1024 * 1024
"""Waits for a client that is there; one that lets it come to more is cut off."""
AWAY_BYTES: Final = 16 * 1024 * 1024
"""Waits for a client that is away."""
MAX_AWAY: Final = 8
"""Clients of one host that are waited for: those that left last."""
MAX_CLIENTS: Final = 100
"""At the same time on one host: each has four sockets of its own, and a process has a thousand."""
_MAX_GIVEN_UP: Final = 1000
_SUBSCRIBED_SECONDS: Final = 10.0
"""A kernel that holds its interpreter this long welcomes nobody; then output may be missed, as with plain Jupyter."""


class Client:
    """One client of one kernel."""

    def __init__(
        self, kernel: Kernel, session_id: str | None, context: zmq.Context[zmq.Socket[bytes]], metrics: Metrics
    ) -> None:
        self.kernel = kernel
        self.session_id = session_id
        self.backlog = Backlog(CONNECTED_BYTES)
        self.news = asyncio.Event()
        """Something waits, or one of the next three has changed."""
        self.holder: object = None
        """The WebSocket that carries for this client now."""
        self.overflowed = False
        self.gone = False
        """The kernel was deleted, or nobody waits for the client any more."""
        self._context = context
        self._metrics = metrics
        self._live: LiveKernel | None = None
        self._connection: KernelConnection | None = None
        self._subscribed = asyncio.Event()
        """Some output has come, the kernel's `iopub_welcome` if nothing else: from now on none is missed."""
        self._ending: asyncio.TimerHandle | None = None
        kernel.watchers.add(self)

    async def connect(self) -> None:
        """Connect to the kernel, which is started when it is dead.

        Raises
        ------
        KernelUnavailable
        """
        self.on_start(await self.kernel.live())

    async def send(self, channel: Channel, parts: list[bytes]) -> None:
        """Hand a message to the kernel, once its output is sure to come here.

        Raises
        ------
        KernelUnavailable
        """
        if not self._subscribed.is_set():
            await self.connect()
            with suppress(TimeoutError):
                async with asyncio.timeout(_SUBSCRIBED_SECONDS):
                    await self._subscribed.wait()
        if self._connection is None:
            raise KernelUnavailable("the kernel ended before it could take the message")
        self._subscribed.set()  # from here on nobody waits again
        self._connection.send_parts(channel, parts)

    def close(self) -> None:
        """Let go of the kernel for good."""
        self.kernel.watchers.discard(self)
        self._disconnect()
        if self.holder is None:
            self.backlog = Backlog(0)
        self.gone = True
        self.news.set()

    # ------------------------------------------------------------------ what the kernel tells its watchers

    def on_start(self, live: LiveKernel) -> None:
        """Connect to a process, unless that has been done."""
        if self._live is live or self.gone:
            return
        if self._ending:
            self._tell_end()
        self._disconnect()
        self._live = live
        live.has_clients = True
        self._connection = KernelConnection(
            self._context,
            live.info,
            on_parts=self._on_parts,
            on_batch=self.news.set,
            on_malformed=self._metrics.malformed.inc,
            channels=("shell", "control", "stdin", "iopub"),
        )

    def on_end(self) -> None:
        """The process has ended: what it wrote last is still on its way."""
        self._subscribed.clear()
        self._ending = asyncio.get_running_loop().call_later(LAST_OUTPUT_SECONDS, self._tell_end)

    def on_delete(self) -> None:
        """There will be no other process."""
        self.close()

    def _tell_end(self) -> None:
        """Say that the process was replaced, as jupyter_server does, after its last words."""
        if self._connection:
            self._connection.drain_now()
        self._disconnect()
        self._add("iopub", message_of("status", {"execution_state": "restarting"}))
        self.news.set()

    def _disconnect(self) -> None:
        if self._ending:
            self._ending.cancel()
            self._ending = None
        self._subscribed.clear()
        if self._connection:
            self._connection.close()
            self._connection = None

    def _on_parts(self, channel: Channel, parts: list[bytes]) -> None:
        if channel == "iopub" and not self._ending:
            self._subscribed.set()
        self._add(channel, parts)

    def _add(self, channel: Channel, parts: list[bytes]) -> None:
        if not self.backlog.add(channel, parts):
            self.overflowed = True


class Clients:
    """The clients of one host."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], metrics: Metrics) -> None:
        self._context = context
        self._metrics = metrics
        self._there = 0
        self._by_session: dict[tuple[str, str], Client] = {}
        """By kernel and session id, whether there or away."""
        self._away: OrderedDict[tuple[str, str], Client] = OrderedDict()
        self._given_up: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Who is to be told that it was not waited for."""

    def check_room(self) -> None:
        """Refuse one more WebSocket.

        Raises
        ------
        TooManyClients
        """
        if self._there >= MAX_CLIENTS:
            raise TooManyClients(f"{MAX_CLIENTS} Jupyter clients are connected already; close one first")

    def join(self, kernel: Kernel, session_id: str | None, holder: object) -> Client:
        """Return the client that a WebSocket carries for from now on; another one that did so is told by `holder`."""
        if session_id is None:
            client = Client(kernel, None, self._context, self._metrics)
        else:
            client = self._return(kernel, session_id)
        self._there += 1
        client.holder = holder
        client.overflowed = False
        client.backlog.limit(CONNECTED_BYTES)
        client.news.set()
        return client

    def _return(self, kernel: Kernel, session_id: str) -> Client:
        key = (kernel.id, session_id)
        self._away.pop(key, None)
        client = self._by_session.get(key)
        if client is None or client.gone:
            client = self._by_session[key] = Client(kernel, session_id, self._context, self._metrics)
            if key in self._given_up:
                del self._given_up[key]
                text = "[What the kernel sent in the meantime is missing here: others left later]\n"
                client.backlog.add("iopub", message_of("stream", {"name": "stderr", "text": text}))
        return client

    def leave(self, client: Client, holder: object) -> None:
        """A WebSocket has ended: wait for its client to return, if it can."""
        self._there -= 1
        if client.holder is not holder:
            return  # another one carries for it
        client.holder = None
        if client.session_id is None or client.gone:
            self._drop(client)
            return
        client.backlog.limit(AWAY_BYTES)
        self._away[client.kernel.id, client.session_id] = client
        if len(self._away) > MAX_AWAY:
            key, oldest = self._away.popitem(last=False)
            self._drop(oldest)
            self._given_up[key] = None
            if len(self._given_up) > _MAX_GIVEN_UP:
                self._given_up.popitem(last=False)

    def _drop(self, client: Client) -> None:
        client.close()
        key = (client.kernel.id, client.session_id or "")
        if self._by_session.get(key) is client:
            del self._by_session[key]
