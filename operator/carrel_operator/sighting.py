"""One look at the isolation of one kernel pod: tries the connections from which `isolation` draws its conclusions.

It opens connections, sends nothing through them, and decides nothing. A connection that must not come about is tried
several times, some time apart, and what got furthest counts: a packet that a busy network lost is not taken for one
that a policy dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from carrel_api import names
from carrel_operator import metrics
from carrel_operator.errors import HostError, HostRefused
from carrel_operator.hosts import Hosts
from carrel_operator.sight import Sight
from carrel_wire.host import ReachOutcome, ReachRequest

SECONDS: Final = 1.0
"""After which nothing was heard. A pod answers within milliseconds where packets get through."""
TRIES: Final = 3
"""Of each connection that must not come about."""
APART: Final = 0.1
"""Seconds between the beginnings of two tries: what drops packets for want of room drops those of one moment."""
BEGUN: Final = TRIES * APART
"""Seconds after which all tries of a look are under way."""
_FURTHEST: Final[tuple[ReachOutcome, ...]] = ("connected", "refused", "unreachable", "timeout")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Target:
    """The kernel host to look at."""

    ip: str
    pod_uid: str
    kernel_port: int = names.KERNEL_PORT
    closed_port: int = names.CLOSED_PORT

    @property
    def endpoint(self) -> str:
        """`host:port` of the kernel port."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{host}:{self.kernel_port}"


@dataclass(frozen=True)
class Lookout:
    """Where the operator looks from."""

    hosts: Hosts
    pod_ip: str
    """Address of the operator's own pod; empty: it has none, and pods are not asked to reach it."""
    reach_port: int
    """Port of its listener, as `handlers.probes.serve` gives it."""

    async def look(self, target: Target, *, unbound: bool) -> Sight:
        """Look once; takes a little longer than a second where all is closed.

        Parameters
        ----------
        target
            The pod, whose kernel host listens.
        unbound
            Whether its kernel host is nobody's yet, so that it may be asked to try.
        """
        kernel_port, closed_port, (from_pod, not_asked) = await asyncio.gather(
            reach(target.ip, target.kernel_port),
            _furthest(lambda: reach(target.ip, target.closed_port)),
            self._from(target, unbound=unbound),
        )
        for connection, outcome in (("kernel_port", kernel_port), ("closed_port", closed_port), ("from_pod", from_pod)):
            metrics.SIGHTS.labels(connection=connection, outcome=outcome or "not_asked").inc()
        return Sight(kernel_port, closed_port, from_pod, datetime.now(UTC), not_asked)

    async def _from(self, target: Target, *, unbound: bool) -> tuple[ReachOutcome | None, str]:
        """Return what came of the pod's connection to the operator, or why it was not asked to try."""
        if not self.pod_ip:
            return None, "the operator knows no address of its own that pods must not reach; set CARREL_POD_IP"
        if not unbound:
            return None, "the kernel host is bound, and was not seen before"
        if await reach(self.pod_ip, self.reach_port) != "connected":
            own = f"{self.pod_ip} port {self.reach_port}"
            return None, f"the operator does not reach its own listener at {own}; correct CARREL_POD_IP"
        request = ReachRequest(host=self.pod_ip, port=self.reach_port, timeout_seconds=SECONDS)
        try:
            return await _furthest(lambda: self.hosts.reach(target.endpoint, target.pod_uid, request)), ""
        except HostError as error:
            logger.info("a kernel host does not try to reach the operator", pod_uid=target.pod_uid, error=str(error))
            return None, f"the kernel host does not try to reach the operator: {error}"


async def reach(host: str, port: int, seconds: float = SECONDS) -> ReachOutcome:
    """Try to open a TCP connection to an IP address from here, and close it at once."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "timeout"
    except (ConnectionRefusedError, ConnectionResetError):
        return "refused"
    except OSError:  # also where no connection could be tried at all: no proof of anything, as `isolation` has it
        return "unreachable"
    writer.close()
    return "connected"


async def _furthest(attempt: Callable[[], Awaitable[ReachOutcome]]) -> ReachOutcome:
    """Try several times and return what got furthest; a try that failed counts unless another one was opened.

    One that a host did not make because it was bound meanwhile says nothing of those that it had made.

    Raises
    ------
    HostError
        The failure of the first that failed.
    """

    async def later(number: int) -> ReachOutcome:
        await asyncio.sleep(number * APART)
        return await attempt()

    ended = await asyncio.gather(*(later(number) for number in range(TRIES)), return_exceptions=True)
    failures = [one for one in ended if isinstance(one, BaseException)]
    outcomes: list[ReachOutcome] = [one for one in ended if not isinstance(one, BaseException)]
    proper = [one for one in failures if not (isinstance(one, HostRefused) and one.code == "already_bound")]
    if not outcomes or (proper and "connected" not in outcomes):
        raise (proper or failures)[0]
    return min(outcomes, key=_FURTHEST.index)
