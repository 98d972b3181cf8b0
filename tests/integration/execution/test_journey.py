"""The whole way of one person, with kernels as child processes; on a cluster the body is the same."""

from __future__ import annotations

from pathlib import Path

import httpx
from tests.support.journey import STEP_SECONDS, journey, leave
from tests.support.serving import gateway


async def test_the_whole_way(tmp_path: Path):
    with gateway(tmp_path / "data") as started:
        headers = {"Authorization": f"Bearer {started.key}"}
        async with httpx.AsyncClient(base_url=started.url, headers=headers, timeout=STEP_SECONDS) as client:
            await leave(client, await journey(client, tmp_path / "elsewhere"))
