"""The audit log over both databases.

Plan: what people do is in it with who, with what, when and to what, or is not done at all; many at once leave a chain
without gaps; the application can change, delete and put in nothing; whoever can (the owner of the tables, with the
triggers off) is found by a look along the chain, at every bit, and what even that cannot find by a head that was noted;
pages, filters and the export give it in order; nobody without the right reads it, and another tenant has its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.exc import DBAPIError
from tests.support.servers import Postgres
from tests.support.state import new_principal

from carrel_gateway.audit.chain import GENESIS, Entry, Head, Verifier, digest_of
from carrel_gateway.audit.metrics import ENTRIES
from carrel_gateway.audit.service import Action, AuditService, Filter, instant
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, PermissionDenied
from carrel_gateway.identity.rights import Role, rights_of
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id


@pytest.fixture
def audit(context: ProcessContext, principal: Principal) -> AuditService:
    return AuditService(context, principal)


async def written(context: ProcessContext, audit: AuditService, tenant_id: UUID, count: int) -> list[Entry]:
    for place in range(count):
        async with context.database.transaction(tenant_id) as tx:
            await audit.record(tx, Action.SESSION_ARCHIVED, new_id(), place=place)
    return (await audit.list(Filter(), limit=500)).items[::-1]


async def test_what_was_done_is_told(audit: AuditService, context: ProcessContext, principal: Principal) -> None:
    sessions = SessionService(context, principal)
    session = await sessions.create()
    before = instant(datetime.now(UTC))
    await sessions.archive(session.id)
    await sessions.delete(session.id)
    removed, deleted, archived = (await audit.list(Filter())).items
    assert [(item.seq, item.action, item.target) for item in (archived, deleted, removed)] == [
        (1, "session.archived", str(session.id)),
        (2, "session.deleted", str(session.id)),
        (3, "session.removed", str(session.id)),
    ]
    assert (deleted.actor, deleted.credential) == (str(principal.user_id), None)
    assert msgspec.json.decode(deleted.detail) == {"owner": str(principal.user_id)}
    assert before <= archived.at <= deleted.at <= instant(datetime.now(UTC))
    verdict = await audit.verify()
    assert (verdict.valid, verdict.entries, verdict.digest) == (True, 3, removed.digest)


async def test_the_credential_is_told(context: ProcessContext, principal: Principal) -> None:
    key_id = new_id()
    audit = AuditService(context, Principal(principal.tenant_id, principal.user_id, credential_id=key_id))
    (entry,) = await written(context, audit, principal.tenant_id, 1)
    assert entry.credential == str(key_id)


async def test_what_is_rolled_back_is_not_told(
    audit: AuditService, context: ProcessContext, principal: Principal
) -> None:
    async def fail() -> None:
        async with context.database.transaction(principal.tenant_id) as tx:
            await audit.record(tx, Action.SESSION_DELETED, "x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert (await audit.list(Filter())).items == []
    assert (await audit.verify()).valid


async def test_what_cannot_be_told_is_not_done(
    context: ProcessContext, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = SessionService(context, principal)
    session = await sessions.create()

    async def refuse(*_: Any, **__: Any) -> None:
        raise InvalidInput("no")

    monkeypatch.setattr(AuditService, "record", refuse)
    for act in (sessions.archive, sessions.delete):
        with pytest.raises(InvalidInput):
            await act(session.id)
    assert (await sessions.get(session.id)).status == "active"


async def test_many_at_once_make_one_chain(audit: AuditService, context: ProcessContext, principal: Principal) -> None:
    def counted() -> float:
        return ENTRIES.labels("session")._value.get()

    before = counted()

    async def one(place: int) -> None:
        async with context.database.transaction(principal.tenant_id) as tx:
            await audit.record(tx, Action.SESSION_ARCHIVED, place)

    await asyncio.gather(*(one(place) for place in range(40)))
    entries = (await audit.list(Filter(), limit=100)).items
    assert [item.seq for item in entries] == list(range(40, 0, -1))
    assert {item.target for item in entries} == {str(place) for place in range(40)}
    assert (await audit.verify()).entries == 40
    assert counted() - before == 40


# ---------------------------------------------------------------------- what the application may

REFUSED = [
    "UPDATE audit SET action = 'session.archived' WHERE tenant_id = :tenant_id",
    "DELETE FROM audit WHERE tenant_id = :tenant_id",
    "DELETE FROM audit_heads WHERE tenant_id = :tenant_id",
    "UPDATE audit_heads SET seq = 1 WHERE tenant_id = :tenant_id",
    "UPDATE audit_heads SET digest = '' WHERE tenant_id = :tenant_id",
    "INSERT INTO audit SELECT tenant_id, seq + 9, at, actor, credential, action, 'x', detail, digest {again}",
    "INSERT INTO audit SELECT tenant_id, seq, at, actor, credential, action, 'x', detail, digest {again}",
]
AGAIN = "FROM audit WHERE tenant_id = :tenant_id AND seq = 1"
REPLACED = [
    "INSERT OR REPLACE INTO audit SELECT tenant_id, seq, at, actor, credential, action, 'x', detail, digest {again}",
    "INSERT OR REPLACE INTO audit_heads SELECT tenant_id, 0, digest FROM audit_heads WHERE tenant_id = :tenant_id",
]


async def test_the_application_changes_nothing(
    audit: AuditService, context: ProcessContext, principal: Principal
) -> None:
    entries = await written(context, audit, principal.tenant_id, 3)
    tenant = bindparam("tenant_id", principal.tenant_id, type_=Uuid())
    for statement in [*REFUSED, *([] if context.database.dialect.shared else REPLACED)]:
        with pytest.raises(DBAPIError, match=r"only added to|permission denied"):
            async with context.database.transaction(principal.tenant_id) as tx:
                await tx.connection.execute(text(statement.format(again=AGAIN)).bindparams(tenant))
    assert (await audit.list(Filter())).items[::-1] == entries
    assert (await audit.verify()).valid


# ---------------------------------------------------------------------- what is found

TENANT = UUID("00000000-0000-7000-8000-00000000000a")


def chain(count: int) -> list[Entry]:
    entries: list[Entry] = []
    previous = GENESIS
    for seq in range(1, count + 1):
        at = instant(datetime(2026, 11, 30, tzinfo=UTC) + timedelta(seconds=seq))
        bare = Entry(seq, at, "a", "b" if seq % 2 else None, "session.deleted", f"t{seq}", '{"n":1}', "")
        previous = digest_of(TENANT, bare, previous)
        entries.append(replace(bare, digest=previous))
    return entries


def problem_of(entries: list[Entry], kept: Head, known: Head | None = None) -> str | None:
    verifier = Verifier(TENANT, known)
    for entry in entries:
        if not verifier.add(entry):
            break
    verifier.end(kept, max((entry.seq for entry in entries), default=0))
    return verifier.problem


def test_every_flipped_bit_is_found() -> None:
    entries = chain(3)
    kept = Head(3, entries[-1].digest)
    assert problem_of(entries, kept) is None
    tried = 0
    for place, entry in enumerate(entries):
        for name in Entry.__slots__:
            value = getattr(entry, name)
            for changed in _flips(value):
                forged = [*entries[:place], replace(entry, **{name: changed}), *entries[place + 1 :]]
                assert problem_of(forged, kept) is not None, (place, name, changed)
                tried += 1
    assert tried > 2500


def _flips(value: Any) -> list[Any]:
    if value is None:
        return ["", "b"]
    if isinstance(value, int):
        return [value ^ (1 << bit) for bit in range(63)]
    raw = value.encode()
    found: list[Any] = []
    for place in range(len(raw)):
        for bit in range(7):  # the eighth makes no UTF-8, which no database gives back as text
            flipped = bytearray(raw)
            flipped[place] ^= 1 << bit
            found.append(flipped.decode())
    return found


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda all_: all_[1:], "entry 1 is not there"),
        (lambda all_: [*all_[:2], *all_[3:]], "entry 3 is not there"),
        (lambda all_: [all_[1], all_[0], *all_[2:]], "entry 1 is not there"),
        (lambda all_: [*all_[:2], _moved(all_[3], 3), _moved(all_[2], 4), all_[4]], "entry 3 is not what was written"),
        (lambda all_: all_[:-1], "the log ends with entry 4, but entry 5 had been written"),
        (lambda _: [], "the log ends with entry 0, but entry 5 had been written"),
        (lambda all_: [*all_, _moved(all_[4], 6)], "entry 6 is not what was written"),
    ],
)
def test_removed_moved_and_cut_off_entries_are_found(forge: Callable[..., list[Entry]], said: str) -> None:
    entries = chain(5)
    assert problem_of(forge(entries), Head(5, entries[-1].digest)) == said


def _moved(entry: Entry, seq: int) -> Entry:
    return replace(entry, seq=seq)


def test_a_head_that_was_noted_finds_what_was_set_back_or_made_anew() -> None:
    entries = chain(5)
    noted = Head(4, entries[3].digest)
    assert problem_of(entries, Head(5, entries[4].digest), noted) is None
    cut = entries[:3]
    assert problem_of(cut, Head(3, cut[-1].digest)) is None
    assert problem_of(cut, Head(3, cut[-1].digest), noted) == "the log ends with entry 3, but entry 4 is known"
    anew = [replace(entries[0], target="other"), *entries[1:]]
    previous = GENESIS
    for place, entry in enumerate(anew):
        previous = digest_of(TENANT, entry, previous)
        anew[place] = replace(entry, digest=previous)
    assert problem_of(anew, Head(5, previous)) is None
    assert problem_of(anew, Head(5, previous), noted) == "entry 4 is not the one that is known"


def as_owner(settings: Settings, postgres: Callable[[], Postgres], statement: str) -> None:
    """Change the tables as whoever owns them can: without triggers and policies."""
    if settings.database_url:
        database = settings.database_url.rpartition("/")[2].partition("?")[0]
        postgres().sql("SET session_replication_role = replica", statement, database=database)
        return
    with sqlite3.connect(Path(settings.data_dir) / "carrel.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement).rowcount > 0
    connection.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET target = target || 'x' WHERE seq = 2", "entry 2 is not what was written"),
        ("UPDATE audit SET at = replace(at, 'T', 't') WHERE seq = 2", "entry 2 is not what was written"),
        ("UPDATE audit SET actor = upper(actor) WHERE seq = 3", "entry 3 is not what was written"),
        ("UPDATE audit SET credential = '' WHERE seq = 1", "entry 1 is not what was written"),
        ("UPDATE audit SET detail = detail || ' ' WHERE seq = 4", "entry 4 is not what was written"),
        ("DELETE FROM audit WHERE seq = 1", "entry 1 is not there"),
        ("DELETE FROM audit WHERE seq = 4", "the log ends with entry 3, but entry 4 had been written"),
        ("UPDATE audit SET seq = 9 WHERE seq = 4", "the log ends with entry 3, but entry 4 had been written"),
        ("UPDATE audit_heads SET seq = 3", "the log ends with entry 3, but entry 3 had been written"),
    ],
)
async def test_what_the_owner_of_the_tables_changes_is_found(
    audit: AuditService,
    context: ProcessContext,
    principal: Principal,
    settings: Settings,
    request: pytest.FixtureRequest,
    statement: str,
    said: str,
) -> None:
    await written(context, audit, principal.tenant_id, 4)
    tenant = f"'{principal.tenant_id if settings.database_url else principal.tenant_id.hex}'"
    limited = f"{statement} {'AND' if 'WHERE' in statement else 'WHERE'} tenant_id = {tenant}"
    as_owner(settings, lambda: request.getfixturevalue("postgres"), limited)
    verdict = await audit.verify()
    assert not verdict.valid
    assert verdict.problem == said


# ---------------------------------------------------------------------- reading


async def test_pages_filters_and_export(audit: AuditService, context: ProcessContext, principal: Principal) -> None:
    entries = await written(context, audit, principal.tenant_id, 5)
    other = AuditService(context, Principal(principal.tenant_id, new_id()))
    async with context.database.transaction(principal.tenant_id) as tx:
        await other.record(tx, Action.SESSION_DELETED, "t\0x")
    first = await audit.list(Filter(), limit=4)
    second = await audit.list(Filter(), limit=4, cursor=first.next_cursor)
    assert [item.seq for item in first.items + second.items] == [6, 5, 4, 3, 2, 1]
    assert second.next_cursor is None
    for wrong in ("x", "-1", "9" * 30, "٣"):
        with pytest.raises(InvalidInput):
            await audit.list(Filter(), cursor=wrong)

    async def seqs(**named: str) -> list[int]:
        return [item.seq for item in (await audit.list(Filter(**named))).items]

    assert await seqs(actor=str(principal.user_id)) == [5, 4, 3, 2, 1]
    assert await seqs(action="session.deleted") == [6]
    assert await seqs(target=entries[1].target) == [2]
    assert await seqs(target="t\ufffdx") == [6]
    assert await seqs(since=entries[3].at) == [6, 5, 4]
    assert await seqs(until=entries[3].at) == [3, 2, 1]
    exported = [entry async for some in await audit.export(Filter(action="session.archived")) for entry in some]
    assert exported == entries
    (told,) = (await audit.list(Filter(action="audit.exported"))).items
    assert msgspec.json.decode(told.detail) == {"action": "session.archived"}


async def test_the_export_and_the_look_go_beyond_one_batch(
    audit: AuditService, context: ProcessContext, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carrel_gateway.audit.repository._BATCH", 2)
    await written(context, audit, principal.tenant_id, 5)
    assert (await audit.verify()).entries == 5
    exported = [entry.seq async for some in await audit.export(Filter()) for entry in some]
    assert exported == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("role", [Role.READONLY, Role.USER])
async def test_only_administrators_read_it(context: ProcessContext, principal: Principal, role: Role) -> None:
    audit = AuditService(context, Principal(principal.tenant_id, principal.user_id, role=role, rights=rights_of(role)))
    for attempt in (audit.list(Filter()), audit.verify(), audit.export(Filter())):
        with pytest.raises(PermissionDenied):
            await attempt


async def test_another_tenant_has_a_log_of_its_own(
    audit: AuditService, context: ProcessContext, principal: Principal
) -> None:
    stranger = await new_principal(context.database)
    theirs = AuditService(context, stranger)
    await written(context, audit, principal.tenant_id, 2)
    assert (await theirs.list(Filter())).items == []
    (entry,) = await written(context, theirs, stranger.tenant_id, 1)
    assert entry.seq == 1
    assert (await theirs.verify()).entries == 1
    assert (await audit.verify()).entries == 2
