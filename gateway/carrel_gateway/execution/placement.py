"""Uploads on their way into the workspace: `data/<name>`, for every kernel host that is found without them."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.errors import NotFound
from carrel_gateway.kernels.connection import HostConnection

CATEGORY: Final = "data"
_MAX_TURNS: Final = 10
"""Versions that come one after the other while each is placed; whoever stores a later one places it, too."""


def workspace_path(name: str) -> str:
    """Return where code in the kernel finds the upload."""
    return f"data/{name}"


async def place(artifacts: ArtifactService, session_id: UUID, name: str, connection: HostConnection) -> None:
    """Have the workspace hold the newest version of an upload, or nothing when it was deleted meanwhile.

    Others, in other gateways perhaps, upload and delete the same name at the same time, and what they did may have come
    to the workspace before what this one does: so it looks again afterwards, as all of them do.
    """
    placed: UUID | None = None
    for _ in range(_MAX_TURNS):
        try:
            newest = await artifacts.newest(session_id, name, CATEGORY)
            if newest.id == placed:
                return
            await connection.put_file(workspace_path(name), await artifacts.read(newest))
            placed = newest.id
        except NotFound:
            if placed is not None:
                await remove(name, connection)
            return


async def remove(name: str, connection: HostConnection) -> None:
    """Remove an upload from the workspace, unless code has done so already."""
    with suppress(NotFound):
        await connection.delete_file(workspace_path(name))


async def place_missing(
    artifacts: ArtifactService, session_id: UUID, connection: HostConnection, *, since: datetime | None = None
) -> int:
    """Write the uploads that the workspace does not have, or has in an older version; return how many.

    A file that code has changed since it was placed stays as it is. In a workspace that is as it was at a time, only
    uploads since then can be missing.
    """
    uploads = await artifacts.list(session_id, category=CATEGORY)
    if not uploads:
        return 0
    there = {file.path: file for file in await connection.files()}
    placed = 0
    for upload in uploads:
        if since and upload.created_at < since:
            continue
        file = there.get(workspace_path(upload.name))
        if file is None or upload.created_at.timestamp() > file.modified:
            await place(artifacts, session_id, upload.name, connection)
            placed += 1
    return placed
