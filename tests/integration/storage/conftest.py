"""Every contract runs over each kind of state: SQLite and Postgres, the bus in the process and over Redis, objects in a
folder and in an S3.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.support.servers import ObjectStore
from tests.support.state import new_principal, open_state
from tests.support.tenancy import statements_without_tenant
from tests.support.working import Working

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.jobs.service import JobService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings that take nothing from the machine's environment but what the test names."""

    def make(**named: Any) -> Settings:
        return Settings(_env_file=None, **{"data_dir": tmp_path / "data", **named})

    return make


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, make_settings: MakeSettings) -> Settings:
    """Settings of one process, over each database."""
    if request.param == "sqlite":
        return make_settings()
    return make_settings(database_url=request.getfixturevalue("postgres_url"))


@pytest.fixture
def s3(object_store: ObjectStore) -> dict[str, Any]:
    """The settings of an object store on S3."""
    return {
        "storage_type": "s3",
        "s3_bucket": object_store.bucket,
        "s3_region": object_store.region,
        "s3_access_key": object_store.access_key,
        "s3_secret_key": object_store.secret_key,
        "s3_endpoint": object_store.endpoint,
    }


@pytest.fixture
async def context(settings: Settings) -> AsyncIterator[ProcessContext]:
    """One process; whatever a test does with it, every statement must be bound to a tenant."""
    async with open_state(settings) as opened:
        with statements_without_tenant(opened.database) as found:
            yield opened
        assert found == []


@pytest.fixture
async def principal(context: ProcessContext) -> Principal:
    """A caller of a tenant of their own."""
    return await new_principal(context.database)


@pytest.fixture
async def session_id(context: ProcessContext, principal: Principal) -> UUID:
    """A session of the principal's."""
    return (await SessionService(context, principal).create()).id


@pytest.fixture
def artifacts(context: ProcessContext, principal: Principal) -> ArtifactService:
    """The principal's files."""
    return ArtifactService(context, principal)


@pytest.fixture
def kind() -> str:
    """A kind of jobs of its own: workers take jobs of all tenants, and tests share a database."""
    return f"test-{new_id().hex}"


@pytest.fixture
def jobs(context: ProcessContext, principal: Principal) -> JobService:
    """The principal's jobs."""
    return JobService(context, principal)


@pytest.fixture
async def working(kind: str) -> AsyncIterator[Working]:
    """Workers of this kind, ended with the test."""
    made = Working(kind)
    yield made
    for worker in made.workers:
        await worker.aclose()
