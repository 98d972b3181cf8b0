"""Uploads on their way into the workspace: `data/<name>`, for every kernel host that is found without them."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from carrel_gateway.artifacts.service import Artifact, ArtifactService
from carrel_gateway.kernels.connection import HostConnection

CATEGORY: Final = "data"


def workspace_path(name: str) -> str:
    """Return where code in the kernel finds the upload."""
    return f"data/{name}"


async def place(artifacts: ArtifactService, artifact: Artifact, connection: HostConnection) -> None:
    """Write one upload into the workspace."""
    _, chunks = await artifacts.open(artifact.session_id, artifact.name, artifact.category)
    await connection.put_file(workspace_path(artifact.name), chunks)


async def place_missing(artifacts: ArtifactService, session_id: UUID, connection: HostConnection) -> int:
    """Write the uploads that the workspace does not have, or has in an older version; return how many.

    A file that code has changed since it was placed stays as it is.
    """
    uploads = await artifacts.list(session_id, category=CATEGORY)
    if not uploads:
        return 0
    there = {file.path: file for file in await connection.files()}
    placed = 0
    for upload in uploads:
        file = there.get(workspace_path(upload.name))
        if file is None or upload.created_at.timestamp() > file.modified:
            await place(artifacts, upload, connection)
            placed += 1
    return placed
