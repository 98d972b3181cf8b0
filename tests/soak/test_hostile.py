"""A kernel that sends its host a million small messages, each about something else, with the right key."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.kernel.host import Host
from tests.integration.kernel.hostile import check_no_defects, flooded, second_kernel, watching
from tests.soak.conftest import Record

from carrel_wire.events import Finished

MESSAGES = 1_000_000
CELLS = 40
MIB = 1024 * 1024


async def test_a_million_small_messages(tmp_path: Path, record: Record):
    began = time.monotonic()
    seed = time.time_ns() % 1_000_000
    async with Host.running(tmp_path) as host:
        await host.bind()
        await second_kernel(host)
        async with watching(host) as watch:
            for cell in range(CELLS):
                (*_, last) = await flooded(host, MESSAGES // CELLS, seed=seed + cell)
                assert isinstance(last, Finished)
                assert last.status == "ok"
        check_no_defects(host)
    assert watch.growth < 64 * MIB, watch.growth
    seconds = time.monotonic() - began
    record(
        "Kernel host: a million small messages",
        "Output, status and unknown messages of a kernel, each with another parent, while the host and another kernel\n"
        f"are asked. Seed {seed}.",
        [
            ("time", f"{seconds:.0f} s, {MESSAGES / seconds:.0f} messages per second"),
            ("growth of the host's memory", f"{watch.growth / MIB:.0f} MiB"),
            ("answers of host and another kernel meanwhile", f"{watch.answers}, each within its deadline"),
        ],
    )
