"""The benchmarks of the gateway, short: that they run, and say what they promise; times are looked at by people.

Plan: every line is measured once, on the servers of the tests, for Carrel and for its peer; the peer of reads gives the
same messages as Carrel does, and nobody else's.
"""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest
from tests.load import gateway_bench, jobs, measures
from tests.load.gateway_bench import AT_ONCE, HEAD, LATE, READ, ROWS, orm_peer, set_up
from tests.load.peers import CarrelServer
from tests.load.requests import ask

from carrel_gateway.settings import Settings


async def test_every_line_is_measured(postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WARM_SECONDS", 0), ("REST_SECONDS", 0), ("KERNELS", 2)):
        monkeypatch.setattr(measures, name, value)
    monkeypatch.setattr(gateway_bench, "TURNS", 1)
    quick = {"CARREL_SPARE_KERNEL_HOST": "false", "CARREL_KERNEL_PRELOAD": ""}
    monkeypatch.setattr(gateway_bench, "SETTINGS", {**gateway_bench.SETTINGS, **quick})
    found = await gateway_bench.measure(postgres_url, redis_url, times=2, read_seconds=0.2)
    lines = found.splitlines()[2:]
    works = [READ]
    for work, _, _ in ROWS:
        works += [work, LATE] if work == AT_ONCE else [work]
    assert [line.split(" | ")[0] for line in lines] == [f"| {work}" for work in works]
    assert all(line.count(" | ") == len(HEAD) - 1 for line in lines)
    figures = [float(figure) for line in lines for figure in re.findall(r" (\d+(?:\.\d+)?)(?: ms \(p99|/s[ ,])", line)]
    assert len(figures) >= 2 * (len(lines) - 1)
    (late,) = (float(line.split(" | ")[1].removesuffix(" ms")) for line in lines if LATE in line)
    assert 0 < late < 60_000
    assert min(figures) > 0
    assert found in gateway_bench.page(found, 2)


async def test_the_peer_reads_what_carrel_reads(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    setup = await set_up(postgres_url, redis_url, tmp_path / "carrel")
    other = await set_up(postgres_url, redis_url, tmp_path / "other")
    path = f"/api/sessions/{setup.session_id}/messages?limit=4"
    settings = {"CARREL_DATABASE_URL": postgres_url, "CARREL_SPARE_KERNEL_HOST": "false"}
    async with (
        orm_peer(postgres_url, tmp_path / "orm") as (url, _),
        CarrelServer.start(tmp_path / "carrel", key=setup.key, settings=settings) as carrel,
        aiohttp.ClientSession() as http,
    ):

        async def read(address: str, key: str) -> tuple[int, list[object]]:
            async with http.get(address + path, headers={"Authorization": f"Bearer {key}"}) as reply:
                return reply.status, (await reply.json()).get("items", [])

        (status, mine), (_, theirs) = await read(carrel.url, setup.key), await read(url, setup.key)
        assert (status, len(mine)) == (200, 4)
        assert [item["id"] for item in theirs] == [item["id"] for item in mine]
        assert (await read(url, other.key))[1] == []
        assert (await read(url, setup.key[:-4] + "AAAA"))[0] == 401
        with pytest.raises(RuntimeError, match="401"):
            await ask(carrel.url + path, "no-key", connections=1, seconds=0.1)


async def test_jobs_are_counted(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, database_url=postgres_url)
    cells = (await jobs.line("Postgres", settings, workers=2, jobs=jobs.BATCH)).strip("| ").split(" | ")
    assert len(cells) == jobs.HEAD.count(" | ") + 1
    assert cells[:2] == ["Postgres", "2, 4"]
    assert all(float(cell.split("/s")[0].split(" ms")[0]) > 0 for cell in cells[2:])
