"""Kernels, fork servers, hosts and connections are killed at random points of cells, five hundred times."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.integration.kernel.host import LIBRARIES, Host
from tests.soak.conftest import Record
from tests.support.kernel_siege import POINTS, VICTIMS, KernelSiege, LocalHost

KILLS = 500
WEIGHTS = {"kernel": 40, "connection": 35, "host": 20, "zygote": 5}


async def test_random_kills(tmp_path: Path, record: Record):
    seed = time.time_ns() % 1_000_000
    chance = random.Random(seed)
    began = time.monotonic()
    async with Host.running(tmp_path, LIBRARIES) as host:
        await host.bind()
        siege = KernelSiege(LocalHost(host), seed)
        for _ in range(KILLS):
            (victim,) = chance.choices(VICTIMS, [WEIGHTS[victim] for victim in VICTIMS])
            await siege.run(victim, chance.choice(POINTS))
        await siege.verify()
    record(
        "Kernel host: kills at random points",
        "Cells run in one kernel host; at a random point of each other cell SIGKILL for its kernel, the fork server\n"
        f"or the host, or a cut of the connection. Seed {seed}.",
        [
            ("time under fire", f"{time.monotonic() - began:.0f} s"),
            ("kills", ", ".join(f"{what}: {count}" for what, count in siege.kills.most_common())),
            ("cells", ", ".join(f"{status}: {count}" for status, count in siege.outcomes.most_common())),
            ("output lost, cells run twice, cells without an end", "none"),
        ],
    )
