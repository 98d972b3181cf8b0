"""One kernel process with its connection, from the handover to its death; and who is told of either."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import zmq

from carrel_kernel.connection import Channel, ConnectionInfo, KernelConnection
from carrel_kernel.container import ContainerMemory
from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.family import Family
from carrel_kernel.memory import MemoryReserve, reserve_of
from carrel_kernel.outcome import OverLimit
from carrel_kernel.process import Handover, KernelProcess, ProcessLimits

LAST_OUTPUT_SECONDS: Final = 0.05
"""What a process wrote before it died is still on its way through the socket for about so long."""
_MAX_BUSY_WITH: Final = 1000


@dataclass(frozen=True)
class Binding:
    """What the session decides for its kernels."""

    session_uid: str
    env: dict[str, str]
    threads: int
    """Of numerical libraries."""
    memory_limit_bytes: int | None


@dataclass(frozen=True)
class Place:
    """Where kernels live."""

    workspace: Path
    runtime: Path
    context: zmq.Context[zmq.Socket[bytes]]
    start_seconds: float
    limits: ProcessLimits
    allowed_imports: tuple[str, ...]
    container: ContainerMemory


class LiveKernel:
    """A kernel that answered; `death` ends with the process's exit code."""

    def __init__(
        self, process: KernelProcess, incarnation: str, memory_limit_bytes: int | None, container: ContainerMemory
    ) -> None:
        self.process = process
        self.incarnation = incarnation
        self.started = time.monotonic()
        self.family = Family(process.pid)
        self.over_limit: OverLimit | None = None
        """Whose limit the host has killed the process for."""
        self.reserve = MemoryReserve(process.pid, memory_limit_bytes)
        self._container = container
        self._out_of_memory_kills = container.kills()
        self.busy_with: dict[str, float] = {}
        """When it took up what it works on, by the requests' ids: subshells and control work beside the code."""
        self.has_clients = False
        """Whether Jupyter clients have been there: otherwise nobody's requests but the host's can be among these."""
        self.connection: KernelConnection
        self.death: asyncio.Task[int] = asyncio.create_task(process.wait())
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(
        cls,
        process: KernelProcess,
        place: Place,
        binding: Binding,
        incarnation: str,
        *,
        on_parts: Callable[[LiveKernel, Channel, list[bytes]], None],
        on_batch: Callable[[], None],
        on_malformed: Callable[[], None],
    ) -> LiveKernel:
        """Hand over to a spare and wait for its first answer.

        Raises
        ------
        KernelUnavailable
            It ended, or did not answer in time.
        """
        live = cls(process, incarnation, binding.memory_limit_bytes, place.container)
        try:
            async with asyncio.timeout(place.start_seconds):
                await process.hand_over(
                    Handover(
                        workspace=str(place.workspace),
                        env=binding.env,
                        threads=binding.threads,
                        memory_limit_bytes=binding.memory_limit_bytes,
                        memory_reserve_bytes=reserve_of(binding.memory_limit_bytes or 0),
                        limits=place.limits,
                        allowed_imports=place.allowed_imports,
                    )
                )
                live.connection = KernelConnection(
                    place.context,
                    process.info,
                    on_parts=lambda channel, parts: on_parts(live, channel, parts),
                    on_batch=on_batch,
                    on_malformed=on_malformed,
                )
                await asyncio.wait((live._welcome, live.death), return_when=asyncio.FIRST_COMPLETED)
                live.check_alive()
        except BaseException as error:
            await process.kill()
            live.close()
            if isinstance(error, TimeoutError):
                raise KernelUnavailable(f"the kernel did not answer within {place.start_seconds:g} s") from error
            raise
        return live

    @property
    def info(self) -> ConnectionInfo:
        """Where the process listens."""
        return self.process.info

    def check_alive(self) -> None:
        """Raise when the process has ended.

        Raises
        ------
        KernelUnavailable
        """
        if self.death.done():
            raise KernelUnavailable("the kernel ended while it started; is its memory limit too small?")

    def killed_for_memory(self) -> bool:
        """Whether the system has killed a process of the container for memory since this one started."""
        return self._container.kills() > self._out_of_memory_kills

    def kill(self, over_limit: OverLimit | None = None) -> None:
        """End the process, its group, and what is known to be below it."""
        self.over_limit = self.over_limit or over_limit
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its group; of a killed one, the rest is ended by `close`."""
        if number is signal.SIGKILL:
            self.family.look()
        self.process.signal(number)

    def welcomed(self) -> None:
        """The subscription to the kernel's output is in force: nothing can be missed from now on."""
        if not self._welcome.done():
            self._welcome.set_result(None)

    def on_busy(self, msg_id: str) -> None:
        """The kernel says that it takes a request up; of one that makes ids up, the latest are believed."""
        self.busy_with[msg_id] = time.monotonic()
        if len(self.busy_with) > _MAX_BUSY_WITH:
            del self.busy_with[next(iter(self.busy_with))]

    def on_idle(self, msg_id: str) -> None:
        """The kernel says that it is done with a request."""
        self.busy_with.pop(msg_id, None)

    def send(self, channel: Channel, msg_type: str, content: dict[str, Any], msg_id: str | None = None) -> str:
        """Send a request and return its id."""
        return self.connection.send(channel, msg_type, content, msg_id)

    def close(self) -> None:
        """Close the connection and remove what the process left."""
        self.family.end()
        if hasattr(self, "connection"):
            self.connection.close()
        self.info.remove_sockets()


class Watcher(Protocol):
    """Somebody who is told of the kernel's processes."""

    def on_start(self, live: LiveKernel) -> None:
        """A process has taken over."""

    def on_end(self) -> None:
        """The process has ended; another one comes, at the latest when somebody wants it."""

    def on_delete(self) -> None:
        """The kernel is no more."""
