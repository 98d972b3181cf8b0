"""What shows others that this host's pod is isolated: a port that nobody may reach, and tries to reach somebody.

The closed port takes every connection and closes it without a word, so a caller that hears nothing at all was stopped
on the way. A try opens a connection, sends nothing, and tells what became of it. Neither judges; the operator does.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Final

from carrel_kernel.errors import AlreadyBound, BadRequest, QueueFull
from carrel_kernel.metrics import Metrics
from carrel_kernel.supervisor import Supervisor
from carrel_wire.host import ReachOutcome, ReachReply, ReachRequest

MAX_TRIES: Final = 4
"""At the same time: an operator needs few, and nobody is to scan networks from here."""
_SECONDS: Final = (0.05, 5.0)
_BACKLOG: Final = 1024
_AT_ONCE: Final = 64
"""Connections that are taken before anything else has its turn: one that is not taken hears nothing either."""
_PAUSE_SECONDS: Final = 0.2
_REFUSED: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})
_UNREACHABLE: Final = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EACCES,  # this and the next: a filter on this very machine
        errno.EPERM,
        errno.EADDRNOTAVAIL,  # this and the next: no address of the kind
        errno.EAFNOSUPPORT,
    }
)


class ClosedPort:
    """A listener that takes connections and closes them; there is one at a time, so it needs one descriptor."""

    def __init__(self, address: str, port: int, taken: Callable[[], object]) -> None:
        """Listen on an IP address, and call `taken` for each connection.

        Raises
        ------
        OSError
            The address is taken, or none of this machine's.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._take)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.getsockname()[1]

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is left, or the caller has gone: not at once again, for as long as it lasts
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            connection.close()
            self._taken()

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._take)


class Reaches:
    """Tries to open connections, a few at a time, while the host is nobody's."""

    def __init__(self, supervisor: Supervisor, metrics: Metrics) -> None:
        self._supervisor = supervisor
        self._metrics = metrics
        self._tries = 0

    async def attempt(self, request: ReachRequest) -> ReachReply:
        """Try once. One that began before bind may end after it.

        Raises
        ------
        BadRequest
            The address is no IP address, or port or time are out of their ranges.
        AlreadyBound
            The host is a session's.
        QueueFull
            As many tries as are allowed go on already.
        """
        address = _checked(request)
        if self._supervisor.binding is not None:
            raise AlreadyBound("the host is bound; it tries to reach nobody any more")
        if self._tries >= MAX_TRIES:
            raise QueueFull(f"a host tries at most {MAX_TRIES} connections at a time; wait for one to end")
        self._tries += 1
        try:
            outcome = await _outcome(address, request.port, request.timeout_seconds)
        finally:
            self._tries -= 1
        self._metrics.reaches.labels(outcome).inc()
        return ReachReply(outcome=outcome)


def _checked(request: ReachRequest) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    least, most = _SECONDS
    if not least <= request.timeout_seconds <= most:
        raise BadRequest(f"timeout_seconds must be from {least} to {most:g}")
    if not 0 < request.port < 65536:
        raise BadRequest("port must be from 1 to 65535")
    try:
        address = ipaddress.ip_address(request.host)
    except ValueError:
        address = None
    if address is None or (address.version == 6 and address.scope_id):
        raise BadRequest("host must be an IP address, without a zone; names are not looked up")
    return address


async def _outcome(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, timeout_seconds: float
) -> ReachOutcome:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(timeout_seconds):
                await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
    except TimeoutError:  # also the system's own, ETIMEDOUT
        return "timeout"
    except OSError as error:
        if error.errno in _REFUSED:
            return "refused"
        if error.errno in _UNREACHABLE:
            return "unreachable"
        raise  # such as no descriptors left: it says nothing of the way
    return "connected"
