"""`/api/audit`: who did what in the tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from carrel_gateway.audit.schemas import AuditPage, AuditVerdict
from carrel_gateway.audit.service import Entry, Filter, Head, instant
from carrel_gateway.dependencies import Audit
from carrel_gateway.errors import InvalidInput

router = APIRouter(prefix="/api/audit", tags=["administration"])
NDJSON = "application/x-ndjson"


async def _filter(
    actor: UUID | None = None,
    action: Annotated[str | None, Query(max_length=64)] = None,
    target: Annotated[str | None, Query(max_length=500)] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> Filter:
    try:
        times = [instant(time) if time else None for time in (since, until)]
    except OverflowError as error:
        raise InvalidInput("there is no such time in UTC") from error
    return Filter(actor=str(actor) if actor else None, action=action, target=target, since=times[0], until=times[1])


Wanted = Annotated[Filter, Depends(_filter)]


@router.get("")
async def list_audit(
    audit: Audit,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> AuditPage:
    """List what was done in the tenant, newest first."""
    return AuditPage.model_validate(await audit.list(wanted, limit=limit, cursor=cursor))


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {NDJSON: {}}}})
async def export_audit(audit: Audit, wanted: Wanted) -> StreamingResponse:
    """Return entries as lines of JSON, oldest first, with all that their digests are made of."""
    return StreamingResponse(_lines(await audit.export(wanted)), media_type=NDJSON)


@router.get("/verify")
async def verify_audit(
    audit: Audit,
    seq: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    digest: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
) -> AuditVerdict:
    """Go along the whole log, and compare it with a head that was noted earlier: `seq` and `digest`."""
    if (seq is None) != (digest is None):
        raise InvalidInput("a head is `seq` and `digest`; name both or none")
    known = Head(seq, digest) if seq is not None and digest is not None else None
    return AuditVerdict.model_validate(await audit.verify(known))


async def _lines(found: AsyncIterator[list[Entry]]) -> AsyncIterator[bytes]:
    async for entries in found:
        yield b"".join(_line(entry) for entry in entries)


def _line(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"
