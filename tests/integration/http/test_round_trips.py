"""What a request costs in questions to Postgres, Redis and kernel hosts, counted: time would say so only sometimes.

Plan: one gateway in this process over Postgres and Redis, and a user with a key. A read is one statement in a
transaction that is open, and the look at who calls none, for they are known; an execution is one transaction, and the
statements in it are few; Redis is asked for a limit once in many calls. What an ordinary transaction of SQLAlchemy's
would ask is counted with the rest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import event, text
from tests.support.inside import Inside, inside
from tests.support.people import new_key, new_user
from tests.support.state import new_principal

from carrel_gateway.context import ProcessContext
from carrel_gateway.history.service import HistoryService
from carrel_gateway.identity import authenticator
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.kernels import acks
from carrel_gateway.kernels.streams import HostStreams
from carrel_gateway.settings import Settings
from carrel_gateway.storage import direct_postgres
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import UserMessage

TIMES = 20
JOBS = text(
    "SELECT count(*) FILTER (WHERE kind = 'jobs.plan' AND status = 'succeeded'),"
    " count(*) FILTER (WHERE status = 'running' OR status = 'queued' AND due_at <= now())"
    " FROM jobs WHERE tenant_id = :tenant_id"
)


class Counted:
    """One gateway, and somebody with a key."""

    def __init__(self, gateway: Inside) -> None:
        self.gateway = gateway
        gateway.call(jobs_done, gateway.context)
        tenant = gateway.call(new_principal, gateway.context.database)
        user = gateway.call(new_user, gateway.context.database, tenant.tenant_id, Role.USER)
        self.key = gateway.call(new_key, gateway.context.database, user)[0]
        made = self.ask("POST", "/api/sessions", json={})
        self.session = f"/api/sessions/{made['id']}"
        said = UserMessage(message_id=new_id(), content="what is one and one?")
        gateway.call(HistoryService(gateway.context, user).append, UUID(made["id"]), [said], actor="user")

    def ask(self, method: str, path: str, **options: Any) -> Any:
        reply = self.gateway.request(method, path, credential=self.key, **options)
        assert reply.status_code < 300, reply.text
        return reply.json()

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count round trips."""
        found: Counter[str] = Counter()
        driver: Any = asyncpg.Connection
        originals = {name: getattr(driver, name) for name in ("execute", "fetch", "executemany")}

        def counted(name: str) -> Any:
            def call(connection: Any, *arguments: Any, **options: Any) -> Any:
                found["postgres"] += 1
                return originals[name](connection, *arguments, **options)

            return call

        ask_redis, ask_host, open_stream = Redis.execute_command, aiohttp.ClientSession.request, HostStreams.open

        def redis(client: Any, *arguments: Any, **options: Any) -> Any:
            found["bus" if "{carrel.bus}" in str(arguments) else "redis"] += 1
            return ask_redis(client, *arguments, **options)

        def host(session: Any, *arguments: Any, **options: Any) -> Any:
            found["host"] += 1
            return ask_host(session, *arguments, **options)

        def stream(streams: Any, *arguments: Any, **options: Any) -> Any:
            found["host"] += 1
            return open_stream(streams, *arguments, **options)

        def plain(*_: Any) -> None:
            found["sqlalchemy"] += 1

        engine = self.gateway.context.database._engine.sync_engine  # pyright: ignore[reportPrivateUsage]
        for name in originals:
            setattr(driver, name, counted(name))
        Redis.execute_command = redis
        aiohttp.ClientSession.request = host
        HostStreams.open = stream
        event.listen(engine, "before_cursor_execute", plain)
        try:
            yield found
        finally:
            event.remove(engine, "before_cursor_execute", plain)
            Redis.execute_command = ask_redis
            aiohttp.ClientSession.request = ask_host
            HostStreams.open = open_stream
            for name, original in originals.items():
                setattr(driver, name, original)


async def jobs_done(context: ProcessContext) -> None:
    """Wait for what a gateway does by itself when it starts."""
    async with asyncio.timeout(60):
        while True:
            async with context.database.transaction(DEFAULT_TENANT_ID, write=False) as tx:
                found = await tx.connection.execute(JOBS, {"tenant_id": DEFAULT_TENANT_ID})
            planned, live = found.one()
            if planned and not live:
                return
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_url: str) -> Iterator[Counted]:
    settings = Settings(  # pyright: ignore[reportCallIssue]
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("gateway") / "data",
        database_url=postgres_url,
        redis_url=redis_url,
        rate_per_principal=10_000,
        spare_kernel_host=False,
        kernel_preload="",
        checkpoint_seconds=0,
        run_lease_seconds=3600,  # whoever looks for runs that nobody has asks the database too
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authenticator, "_FLUSH_SECONDS", 3600.0)  # when a key was used is written down by itself
        # Whoever looks for jobs does, too; nobody may set that it is done so seldom.
        with inside(settings.model_copy(update={"jobs_poll_seconds": 3600.0})) as gateway:
            yield Counted(gateway)


@pytest.fixture
def reads_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a read's transaction be there for the next one, however long that takes to come."""
    for name in ("OPEN_SECONDS", "SHARED_SECONDS"):
        monkeypatch.setattr(direct_postgres, name, 3600.0)


@pytest.mark.parametrize(("path", "statements"), [("/messages?limit=10", 1), ("/events?limit=10", 1), ("", 1)])
@pytest.mark.usefixtures("reads_stay_open")
def test_a_read_is_one_statement_and_asks_nobody_who_calls(counted: Counted, path: str, statements: int):
    for _ in range(3):  # who calls is remembered when the news of the tenant are heard
        counted.ask("GET", counted.session + path)
    with counted.counting() as found:
        for _ in range(TIMES):
            counted.ask("GET", counted.session + path)
    assert found["sqlalchemy"] == 0
    assert TIMES * statements <= found["postgres"] <= TIMES * statements + 1, "one more where none is open yet"
    assert found["redis"] <= TIMES / 4


def test_an_execution_is_one_transaction_and_one_call(counted: Counted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acks, "WAIT_SECONDS", 3600.0)  # with the next code, however long that takes

    def execute() -> None:
        assert counted.ask("POST", f"{counted.session}/kernel/execute", json={"code": "1+1"})["status"] == "ok"

    for _ in range(3):
        execute()
    with counted.counting() as found:
        for _ in range(TIMES):
            execute()
    assert found["sqlalchemy"] == 0
    assert TIMES * 3 <= found["postgres"] <= TIMES * 5
    assert found["redis"] <= TIMES / 4
    assert 0 < found["bus"] <= TIMES * 4
    assert found["host"] == TIMES


@pytest.mark.usefixtures("reads_stay_open")
def test_a_look_at_who_calls_is_one_statement_by_the_driver(counted: Counted):
    asked = counted.gateway.authenticator
    with counted.counting() as found:
        for _ in range(TIMES):
            asked._cache._entries.clear()  # pyright: ignore[reportPrivateUsage]
            counted.ask("GET", f"{counted.session}/messages")
    assert found["sqlalchemy"] == 0
    assert TIMES * 2 <= found["postgres"] <= TIMES * 2 + 1, "one more where none is open yet"
