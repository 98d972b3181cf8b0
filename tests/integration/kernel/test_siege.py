"""Sixty kills of a kernel, the fork server, the host and the connection, at every point of a cell.

Plan: each thing that can die, at each point of a cell, one to four times, with what must hold checked after each
(`tests.support.kernel_siege`). Kernels that follow are forks or fresh interpreters, as the fork server just allows. The
long form, with hundreds of kills at random, is in `tests/soak`; the one in a real pod in `tests/cluster`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.kernel.host import Host
from tests.support.kernel_siege import POINTS, VICTIMS, KernelSiege, LocalHost, Victim

TIMES: dict[Victim, int] = {"kernel": 4, "connection": 4, "host": 3, "zygote": 1}
"""A fork server that dies again and again is started anew after longer and longer pauses, so once must do here."""


@pytest.mark.parametrize("victim", VICTIMS)
async def test_nothing_is_lost_nothing_runs_twice_and_nothing_hangs(tmp_path: Path, victim: Victim) -> None:
    async with Host.running(tmp_path) as host:
        await host.bind()
        siege = KernelSiege(LocalHost(host), seed=VICTIMS.index(victim))
        for _ in range(TIMES[victim]):
            for point in POINTS:
                await siege.run(victim, point)
        await siege.verify()
    assert siege.kills == {victim: TIMES[victim] * len(POINTS)}
    assert siege.outcomes["ok"] >= TIMES[victim] * len(POINTS)


def test_sixty_kills() -> None:
    assert sum(TIMES.values()) * len(POINTS) == 60
