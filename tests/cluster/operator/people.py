"""Somebody who works in a session while things break: makes it, keeps a number in it, has it saved, wakes it, ends it.

The tests play the gateway here: what a snapshot held must be there whenever the session is worked with again, also
after its pod was lost. What was not saved may be lost with a kernel, and is never anything but the last number or the
saved one.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.cluster.operator.hosts import CellFailed, Host, Hosts, Saved
from tests.cluster.operator.sessions import Sessions
from tests.cluster.operator.watching import History

from carrel_gateway.errors import CarrelError, KernelLost

PATIENCE = 300.0
"""Seconds for anything to come about, whatever is killed meanwhile."""
WORN = 3
"""Losses after which a session is given up: the pauses before new pods grow with each."""
LOOK = 0.1
BROKEN = (CellFailed, CarrelError, aiohttp.ClientError, TimeoutError, OSError)


@dataclass
class Person:
    """One session at a time."""

    sessions: Sessions
    history: History
    hosts: Hosts
    pool_class: str
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter[str])
    trouble: Counter[str] = field(default_factory=Counter[str])
    name: str = ""
    number: int = 0
    """What the kernel was last told, and answered to."""
    incarnation: str = ""
    saved: Saved | None = None
    saved_number: int = 0

    async def work(self, stop: asyncio.Event) -> None:
        """Go on until told to stop, and leave nothing behind."""
        while not stop.is_set():
            await self._begin()
            await self._count()
            while not stop.is_set() and self._session()["status"].get("restarts", 0) < WORN:
                await self.chance.choice([self._count, self._count, self._rest])()
            if self.saved is None:  # also the shortest life has its night
                await self._rest()
            await self._end()

    # ------------------------------------------------------------------ one session

    async def _begin(self) -> None:
        spec: dict[str, Any] = {"className": self.pool_class}
        if self.chance.random() < 0.25:
            spec |= {
                "workspace": {"type": "Persistent", "size": "50Mi"},
                "network": {"egress": [{"cidr": "203.0.113.0/25", "ports": [443]}]},
            }
        self.name = await asyncio.to_thread(lambda: self.sessions.create(**spec))
        self.number, self.incarnation, self.saved, self.saved_number = 0, "", None, 0
        await self._until("ready", lambda status: status.get("endpoint"))
        self.done["started cold" if "pool" not in self._session()["status"] else "claimed"] += 1

    async def _end(self) -> None:
        await asyncio.to_thread(self.sessions.delete, self.name)
        self.done["deleted"] += 1

    async def _count(self) -> None:
        """Have the kernel count one further."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    kernel = await self._kernel(await self._until("ready", lambda status: status.get("endpoint")))
                    code = f"number = {self.number + 1}; print(number)"
                    self.number = int(await kernel.run(code, self.incarnation))
                except BROKEN as error:
                    await self._tired(error)
                    continue
                self.done["counted"] += 1
                return

    async def _rest(self) -> None:
        """Suspend, save what is there as long as there is a pod whose state is not saved, and wake."""
        await self._patch({"operatingMode": "Suspended"})
        async with asyncio.timeout(PATIENCE):
            while not _true((session := self._session())["status"], "Suspended"):
                if session["status"].get("endpoint") and not self._is_saved(session):
                    try:
                        self.saved = await self._save(await self._kernel(session))
                    except BROKEN as error:
                        await self._tired(error)
                        continue
                    self.saved_number = self.number
                    await self._patch({"snapshot": self.saved.reference})
                await asyncio.sleep(LOOK)
        self.done["suspended"] += 1
        await self._patch({"operatingMode": "Running"})
        await self._count()
        self.done["woken"] += 1

    async def _save(self, kernel: Host) -> Saved:
        """Take a snapshot of the process that has the number: a host that was killed since has another one."""
        saved = await kernel.save()
        manifest = saved.manifest
        if manifest.incarnation != self.incarnation:
            raise KernelLost("The process that was to be saved is gone.", code="another_process_saved")
        if any(one.name == "number" for one in manifest.not_saved):  # and said so: a machine that is too busy
            raise KernelLost("The number is not in the snapshot.", code="not_saved")
        assert [one.name for one in manifest.variables.variables] == ["number"], manifest.variables
        return saved

    def _is_saved(self, session: dict[str, Any]) -> bool:
        return self.saved is not None and self.saved.pod_uid == session["status"]["podUID"]

    # ------------------------------------------------------------------ the kernel

    async def _kernel(self, session: dict[str, Any]) -> Host:
        """Return the session's kernel, with its number in it: brought back from the snapshot in a new process."""
        kernel = self.hosts.of(session)
        main = next((one for one in (await kernel.state()).kernels if one.id == "main"), None)
        if main is None:
            raise TimeoutError("the host is not bound yet")
        if main.incarnation == self.incarnation:
            found = int(await kernel.run("print(number)", self.incarnation))
            assert found in {self.number, self.number + 1}, (
                found,
                self.number,
            )  # a cell may run and its answer be lost
            self.number = found
            return kernel
        if self.saved is not None:
            reply = await kernel.restore(self.saved)
            assert reply.incarnation != main.incarnation or reply.restored == ["number"], reply
            found = int(await kernel.run("print(number)", main.incarnation))
            assert found == self.saved_number, f"the snapshot held {self.saved_number}, and there is {found}"
            self.done["brought back"] += 1
        else:
            await kernel.run("number = 0", main.incarnation)
        self.number, self.incarnation = self.saved_number, main.incarnation
        return kernel

    # ------------------------------------------------------------------ the cluster

    def _session(self) -> dict[str, Any]:
        found = self.history.latest(self.name)
        return {"status": {}, **(found or {})}

    async def _until(self, what: str, holds: Any) -> dict[str, Any]:
        """Wait for the watch to show it."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds(self._session()["status"]):  # noqa: ASYNC110 (another thread fills the history)
                    await asyncio.sleep(LOOK)
        except TimeoutError as error:
            raise AssertionError(f"{self.name} is not {what}: {self._session()['status']}") from error
        return self._session()

    async def _patch(self, spec: dict[str, Any]) -> None:
        await asyncio.to_thread(self.sessions.patch, self.name, json.dumps(spec))

    async def _tired(self, error: BaseException) -> None:
        """Try again a little later; but an exception in a cell means that its number is not there."""
        if isinstance(error, CellFailed) and error.status == "error":
            raise error
        self.trouble[getattr(error, "code", "") or type(error).__name__] += 1
        await asyncio.sleep(0.3)


def _true(status: dict[str, Any], kind: str) -> bool:
    return any(one["type"] == kind and one["status"] == "True" for one in status.get("conditions", []))
