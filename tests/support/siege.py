"""Random kills while people work: the bodies of the soak runs, and of their short forms.

Everything random comes from one seed; a run ends by itself after the given time. The checks are the witnesses'.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.support import serving
from tests.support.local import hosts_of
from tests.support.witness import ANSWER_SECONDS, Witness

from carrel_gateway.executors.local import HostRecord

FEWEST = 3
"""Strikes of even the shortest siege on the slowest machine."""


@dataclass
class Figures:
    """What a siege came to."""

    seconds: float
    strikes: Counter[str]
    cells: Counter[str] = field(default_factory=Counter[str])
    """By acknowledged status."""
    questions: int = 0
    suspensions: int = 0
    events: int = 0
    trouble: Counter[str] = field(default_factory=Counter[str])
    """Answers after which a caller had to try again."""

    def rows(self) -> list[tuple[str, str]]:
        """Return them for people."""
        return [
            ("time under fire", f"{self.seconds:.0f} s"),
            ("kills", _counts(self.strikes)),
            ("cells acknowledged", _counts(self.cells)),
            ("questions answered", str(self.questions)),
            ("suspensions", str(self.suspensions)),
            ("events in the logs, without a gap", str(self.events)),
            ("requests that were tried again", _counts(self.trouble) or "none"),
            ("lost, or run twice", "nothing"),
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counter.most_common())


Strike = Callable[[], Awaitable[str]]
"""Kills something and returns what it was."""


Check = Callable[[list[dict[str, Any]]], None]
"""Looks at the whole log of a witness's session."""


async def _nothing() -> None:
    pass


async def siege(
    witnesses: list[Witness],
    strikes: list[Strike],
    *,
    seconds: float,
    pause: tuple[float, float],
    seed: int,
    checks: Sequence[Check] = (),
    before_leaving: Callable[[], Awaitable[None]] = _nothing,
) -> Figures:
    """Let the witnesses work while the strikes come at random, three at least, then let them check everything.

    `checks` are further ones, of each witness's log in turn; `before_leaving` is done while the sessions are there.
    """
    chance = random.Random(seed)
    stop = asyncio.Event()
    figures = Figures(seconds, Counter())
    async with asyncio.TaskGroup() as work:
        for witness in witnesses:
            work.create_task(witness.work(stop, random.Random(chance.random())))
        end = time.monotonic() + seconds
        while time.monotonic() < end or figures.strikes.total() < FEWEST:
            await asyncio.sleep(chance.uniform(*pause))
            figures.strikes[await chance.choice(strikes)()] += 1
        stop.set()
    for place, witness in enumerate(witnesses):
        log = await witness.verify()
        figures.events += len(log)
        for check in checks[place : place + 1]:
            check(log)
        figures.cells.update(witness.acknowledged.values())
        figures.questions += witness.questions
        figures.suspensions += witness.suspensions
        figures.trouble.update(witness.trouble)
    await before_leaving()
    for witness in witnesses:
        await witness.leave()
    return figures


class Embedded:
    """The embedded product as a process, its kernel hosts and their kernels: three things to kill."""

    def __init__(self, data_dir: Path, client: httpx.AsyncClient, seed: int) -> None:
        self._data_dir = data_dir
        self._client = client
        self._chance = random.Random(seed)
        self._gateway = serving.start(data_dir)
        self._connect()

    def _connect(self) -> None:
        self._client.base_url = self._gateway.url
        self._client.headers["Authorization"] = f"Bearer {self._gateway.key}"

    async def kill_gateway(self) -> str:
        """Kill the gateway and start another one on the same folder, at another address."""
        await asyncio.to_thread(self._gateway.stop, signal.SIGKILL)
        self._gateway = await asyncio.to_thread(serving.start, self._data_dir)
        self._connect()
        return "gateway"

    async def kill_host(self) -> str:
        """Kill the kernel host of one session."""
        pid = self._some_host()
        return "kernel host" if pid and _kill(pid) else "nothing"

    async def kill_kernel(self) -> str:
        """Kill one child of a kernel host: its kernel, as a rule."""
        host = self._some_host()
        kernels = _children(host) if host else []
        return "kernel" if kernels and _kill(self._chance.choice(kernels)) else "nothing"

    async def stop(self) -> None:
        """End the gateway, and see to it that no host is left, also of those that were killed."""
        await asyncio.to_thread(self._gateway.stop)
        async with asyncio.timeout(ANSWER_SECONDS):
            while await asyncio.to_thread(hosts_of, self._data_dir):  # noqa: ASYNC110  asked of the system
                await asyncio.sleep(0.2)

    def _some_host(self) -> int | None:
        records = sorted((self._data_dir / "hosts").glob("*.json"))
        with suppress(OSError, msgspec.DecodeError):
            if records:
                return msgspec.json.decode(self._chance.choice(records).read_bytes(), type=HostRecord).pid
        return None


async def besiege_embedded(folder: Path, *, seconds: float, sessions: int, seed: int) -> Figures:
    """Kill gateway, hosts and kernels of the embedded product at random."""
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
        product = Embedded(folder / "data", client, seed)
        try:
            witnesses = [await Witness.arrive(client, files_outlive_kernels=True) for _ in range(sessions)]
            strikes: list[Strike] = [product.kill_gateway, product.kill_host, product.kill_kernel]
            return await siege(witnesses, strikes, seconds=seconds, pause=(0.5, 4.0), seed=seed)
        finally:
            await product.stop()


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    return []
