"""Health of a gateway whose parts go away.

Plan: over Postgres, Redis, an S3 and a cluster, each behind a connection that can be cut and muted; readiness is 200
and names the part that is away, unless it is the database, when it is 503 with a time to come back; it answers also
where all of them take connections and say nothing; afterwards it is well by itself; liveness answers all the while.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from aiohttp import web
from tests.support import contract, serving
from tests.support.api_over_http import listening
from tests.support.network import Link, link_to
from tests.support.servers import ObjectStore

from carrel_wire.tokens import generate_private_key

DEADLINE = 60.0
PARTS = ["database", "bus", "object_store", "executor"]
WELL = {"model_provider": "ok", "suspension": "ok", "jobs": "ok"} | dict.fromkeys(PARTS, "ok")


async def no_sessions(request: web.Request) -> web.StreamResponse:
    """Answer as an API server that has no AgentSession; one that asks for changes hears of none."""
    if "watch" in request.query:
        await asyncio.sleep(DEADLINE)
    return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})


def kubeconfig(url: str) -> str:
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [context],
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {"token": "secret-token"}}],
        }
    )


@asynccontextmanager
async def started(
    folder: Path, postgres_url: str, redis_url: str, store: ObjectStore
) -> AsyncIterator[tuple[dict[str, Link], httpx.AsyncClient]]:
    """A gateway with a link to each of its parts, and a client of it."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(listening(no_sessions))
        ports = [urlsplit(url).port or 0 for url in (postgres_url, redis_url, store.endpoint, cluster)]
        links = [await stack.enter_async_context(link_to(port)) for port in ports]
        database, bus, objects, executor = (f"127.0.0.1:{link.port}" for link in links)
        (folder / "kubeconfig").write_text(kubeconfig(f"http://{executor}"))
        (folder / "key.pem").write_text(generate_private_key())
        gateway = await asyncio.to_thread(
            serving.start,
            folder / "data",
            CARREL_DATABASE_URL=postgres_url.replace(f"127.0.0.1:{ports[0]}", database),
            CARREL_REDIS_URL=f"redis://{bus}/0",
            CARREL_STORAGE_TYPE="s3",
            CARREL_S3_BUCKET=store.bucket,
            CARREL_S3_ACCESS_KEY=store.access_key,
            CARREL_S3_SECRET_KEY=store.secret_key,
            CARREL_S3_ENDPOINT=f"http://{objects}",
            CARREL_EXECUTOR_TYPE="kubernetes",
            CARREL_SECRET_KEYS=f"k1:{base64.b64encode(bytes(32)).decode()}",
            CARREL_KERNEL_PRIVATE_KEY_FILE=str(folder / "key.pem"),
            KUBECONFIG=str(folder / "kubeconfig"),
        )
        stack.push_async_callback(asyncio.to_thread, gateway.stop)
        hooks = {"response": [declared]}
        client = httpx.AsyncClient(base_url=gateway.url, timeout=30, event_hooks=hooks)
        yield dict(zip(PARTS, links, strict=True)), await stack.enter_async_context(client)


async def declared(reply: httpx.Response) -> None:
    await reply.aread()
    contract.check(reply)


async def check(api: httpx.AsyncClient, away: Collection[str]) -> None:
    """Wait until these parts and no others are away, and look at the answer; liveness is asked all the while."""
    wanted = WELL | dict.fromkeys(away, "away")
    async with asyncio.timeout(DEADLINE):
        while True:
            assert (await api.get("/health")).json() == {"status": "ok"}
            reply = await api.get("/health/ready")
            told = reply.json()
            if {name: part["status"] for name, part in told["parts"].items()} == wanted:
                break
            await asyncio.sleep(0.05)
    without = "database" in away
    assert told["status"] == ("away" if without else "degraded" if away else "ok")
    assert (reply.status_code, reply.headers.get("retry-after")) == ((503, "5") if without else (200, None))
    for name, part in told["parts"].items():
        assert bool(part["message"]) == (name in away), name
    assert "secret" not in reply.text


async def test_only_without_its_database_a_gateway_is_not_ready(tmp_path, postgres_url, redis_url, object_store):
    async with started(tmp_path, postgres_url, redis_url, object_store) as (links, api):
        await check(api, [])
        for name in PARTS:
            links[name].open = False
            links[name].cut()
            await check(api, [name])
            links[name].open = True
        for mute, away in ((True, PARTS), (False, [])):
            for link in links.values():
                link.mute(mute=mute)
            await check(api, away)
