"""What the gateway's own jobs do, over both databases.

Plan: every kind that is scheduled is known, and every one that is known is scheduled; each sweeps the job's tenant, in
batches until nothing is left; kernels of sessions without a row are given back, and only those of tenants that there
are; folders of sessions that no tenant has are removed, only beside an embedded database and only when nobody has
touched them for a day.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import insert
from tests.support.account_desk import AccountDesk, account_desk
from tests.support.state import NoKernels, new_principal

from carrel_gateway import housekeeping
from carrel_gateway.accounts.service import LoginService
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.executors.folders import Folders
from carrel_gateway.idempotency.service import IdempotencyService
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.identity.tables import accounts
from carrel_gateway.jobs.model import Job, by_name
from carrel_gateway.jobs.schedules import TICK_SECONDS
from carrel_gateway.jobs.service import KEEP_SUCCEEDED, JobService
from carrel_gateway.quotas.service import QuotaService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.snapshots.service import SnapshotService
from carrel_gateway.storage.ids import new_id
from carrel_gateway.uploads.service import UploadService

SWEEPS: list[tuple[str, type[Any], str]] = [
    ("sessions.remove", SessionService, "sweep"),
    ("sessions.expire", SessionService, "expire"),
    ("artifacts.sweep", ArtifactService, "sweep"),
    ("uploads.sweep", UploadService, "sweep"),
    ("snapshots.sweep", SnapshotService, "sweep"),
    ("idempotency.sweep", IdempotencyService, "sweep"),
    ("quotas.sweep", QuotaService, "sweep"),
    ("jobs.sweep", JobService, "sweep"),
]


@pytest.fixture
async def desk(context: ProcessContext) -> AsyncIterator[AccountDesk]:
    async with account_desk(context) as opened:
        yield opened


@pytest.fixture
async def member(context: ProcessContext, principal: Principal) -> Principal:
    """A caller whose tenant is that of an account, and so one of all tenants."""
    row = {"id": principal.user_id, "tenants": [str(principal.tenant_id)], "created_at": datetime.now(UTC)}
    async with context.database.login_transaction() as lookup:
        await lookup.execute(insert(accounts).values(**row))
    return principal


async def do(desk: AccountDesk, kind: str, tenant_id: UUID = DEFAULT_TENANT_ID) -> dict[str, Any]:
    now = datetime.now(UTC)
    job = Job(
        tenant_id=tenant_id,
        id=new_id(),
        kind=kind,
        key=None,
        payload={},
        priority=0,
        status="running",
        attempts=1,
        max_attempts=1,
        due_at=now,
        owner=None,
        generation=1,
        cancel_requested=False,
        result=None,
        error_code=None,
        error=None,
        request_id=None,
        created_at=now,
        started_at=now,
        finished_at=None,
    )
    context = desk.parts.context
    return dict(await by_name(housekeeping.kinds(context, desk.parts))[kind].work(job) or {})


async def test_what_is_scheduled_is_known_and_the_other_way_round(desk: AccountDesk) -> None:
    known = by_name(housekeeping.kinds(desk.parts.context, desk.parts))
    assert [schedule.kind for schedule in housekeeping.SCHEDULES if schedule.kind not in known] == []
    assert known.keys() == {schedule.kind for schedule in housekeeping.SCHEDULES}
    for schedule in housekeeping.SCHEDULES:
        assert schedule.every_seconds % TICK_SECONDS == 0
        assert schedule.every_seconds < KEEP_SUCCEEDED.total_seconds(), "its row says that it was stored"


@pytest.mark.parametrize(("kind", "owner", "name"), SWEEPS, ids=[kind for kind, _, _ in SWEEPS])
async def test_a_sweep_goes_on_until_nothing_is_left_of_its_tenant(
    desk: AccountDesk, principal: Principal, monkeypatch: pytest.MonkeyPatch, kind: str, owner: type[Any], name: str
) -> None:
    left, seen = [100, 100, 7], list[Principal]()

    async def sweep(service: Any) -> int:
        seen.append(service._principal if hasattr(service, "_principal") else service._tenant_id)
        return left.pop() if left else 0

    monkeypatch.setattr(owner, name, sweep)
    assert await do(desk, kind, principal.tenant_id) == {"removed": 207}
    assert {getattr(who, "tenant_id", who) for who in seen} == {principal.tenant_id}
    assert len(seen) == 4


async def test_logins_are_swept(desk: AccountDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sweep(_: LoginService) -> int:
        return 3

    monkeypatch.setattr(LoginService, "sweep", sweep)
    assert await do(desk, "logins.sweep") == {"removed": 3}


async def test_kernels_of_sessions_that_are_gone_are_given_back(
    desk: AccountDesk, context: ProcessContext, member: Principal
) -> None:
    kernels = cast("NoKernels", context.executor)
    sessions, foreign = SessionService(context, member), await new_principal(context.database)
    kept, deleted = await sessions.create(), await sessions.create()
    kernels.orphans = refs = [
        SessionRef(member.tenant_id, kept.id, member.user_id),
        SessionRef(member.tenant_id, new_id(), member.user_id),
        SessionRef(foreign.tenant_id, new_id(), foreign.user_id),  # no account is of this tenant
        SessionRef(member.tenant_id, deleted.id, member.user_id),
    ]
    assert await do(desk, "kernels.release") == {"released": 1}
    assert kernels.released == [refs[1]]


async def test_folders_of_sessions_that_nobody_has_are_removed(
    desk: AccountDesk, context: ProcessContext, member: Principal
) -> None:
    kernels = cast("NoKernels", context.executor)
    kept, orphan = await SessionService(context, member).create(), new_id()
    kernels.workspaces = [kept.id, orphan]
    alone = not context.database.dialect.shared
    assert await do(desk, "workspaces.purge") == {"purged": int(alone)}
    assert [ref.session_id for ref in kernels.released] == ([orphan] if alone else [])


def test_only_what_nobody_has_touched_for_a_day_is_old(tmp_path: Path) -> None:
    folders = Folders.make(tmp_path, None)
    old, young = new_id(), new_id()
    for session_id in (old, young):
        folders.give(folders.workspace(session_id), mode=0o700)
    (folders.workspaces / "not-a-session").mkdir()
    before = time.time() - 2 * 86_400
    for name in (str(old), "not-a-session"):
        os.utime(folders.workspaces / name, (before, before))
    assert folders.untouched(86_400) == [old]
