"""Files that people upload, and files that their code made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response, status
from fastapi.responses import StreamingResponse

from carrel_gateway.artifacts.schemas import ArtifactList, ArtifactOut, SignedUrl
from carrel_gateway.artifacts.service import Artifact, ArtifactService
from carrel_gateway.dependencies import (
    Artifacts,
    Cursor,
    EffectOf,
    Executions,
    Gateway,
    GatewayOf,
    Offset,
    Seen,
    Sessions,
    require_active,
)
from carrel_gateway.errors import InvalidInput
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.idempotency.service import fingerprint_of
from carrel_gateway.web import downloads
from carrel_gateway.web.multipart import boundary_of, read_parts

router = APIRouter(route_class=IdempotentRoute, tags=["files"])
signed = APIRouter(tags=["artifacts"])
_SESSION = "/api/sessions/{session_id}"
Limit = Annotated[int, Query(ge=1, le=1000)]
AsAddress = Annotated[bool, Query(alias="url", description="Return a signed address instead of the file.")]
_FILE_OR_ADDRESS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": SignedUrl, "description": "The file or, with `url=1`, a signed address of it."}
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["file"],
                }
            }
        },
    }
}


@router.post(f"{_SESSION}/files", status_code=status.HTTP_201_CREATED, openapi_extra=_BODY)
async def upload_files(
    session_id: UUID,
    request: Request,
    gateway: GatewayOf,
    sessions: Sessions,
    artifacts: Artifacts,
    executions: Executions,
    effect: EffectOf,
    content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> ArtifactList:
    """Upload one file or many; code finds each at `data/<name>`. The same name again is a new version."""
    await require_active(sessions, session_id)
    stored: list[Artifact] = []
    seen: list[bytes] = []
    async for part in read_parts(request.stream(), boundary_of(content_type)):
        if part.filename is None:
            continue
        artifact = await artifacts.store(
            session_id,
            name=part.filename,
            category="data",
            content_type=part.content_type,
            chunks=part.chunks(),
            max_bytes=gateway.context.settings.upload_max_bytes,
            artifact_id=effect.part(len(stored)),
            again=effect.again,
        )
        await executions.place_file(session_id, artifact)
        stored.append(artifact)
        seen += [part.filename.encode(), artifact.sha256.encode()]
    if not stored:
        raise InvalidInput("the body has no file; send at least one part with a file name", code="no_file")
    effect.fingerprint = fingerprint_of(*seen)
    return ArtifactList(items=[ArtifactOut.model_validate(item) for item in stored])


@router.get(f"{_SESSION}/files")
async def list_files(
    session_id: UUID,
    sessions: Sessions,
    artifacts: Artifacts,
    limit: Limit = 200,
    offset: Offset = 0,
    cursor: Cursor = None,
) -> ArtifactList:
    """List the uploaded files, each in its newest version, by name."""
    await sessions.get(session_id)
    page = await artifacts.page(session_id, category="data", limit=limit, offset=offset, cursor=cursor)
    return ArtifactList.model_validate(page)


@router.get(f"{_SESSION}/files/{{name:path}}", response_model=None, responses=_FILE_OR_ADDRESS)
async def download_file(
    session_id: UUID, name: str, artifacts: Artifacts, gateway: GatewayOf, url: AsAddress = False
) -> Response | SignedUrl:
    """Download an uploaded file."""
    return await _answer(artifacts, await artifacts.newest(session_id, name, "data"), gateway, url=url)


@router.delete(f"{_SESSION}/files/{{name:path}}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_file(
    session_id: UUID, name: str, sessions: Sessions, artifacts: Artifacts, executions: Executions, seen: Seen
) -> Response:
    """Delete an uploaded file, from the session and from its kernel's workspace."""
    await require_active(sessions, session_id)
    artifact = await artifacts.delete(session_id, name, "data", seen.on(_tag_of))
    await executions.remove_file(session_id, artifact)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get(f"{_SESSION}/artifacts", tags=["artifacts"])
async def list_artifacts(
    session_id: UUID,
    sessions: Sessions,
    artifacts: Artifacts,
    category: Annotated[Literal["data", "artifacts", "notebooks"] | None, Query()] = "artifacts",
    prefix: Annotated[str, Query(max_length=1000)] = "",
    limit: Limit = 200,
    offset: Offset = 0,
    cursor: Cursor = None,
) -> ArtifactList:
    """List the files that code made, each in its newest version, by name."""
    await sessions.get(session_id)
    page = await artifacts.page(session_id, category=category, prefix=prefix, limit=limit, offset=offset, cursor=cursor)
    return ArtifactList.model_validate(page)


@router.get(
    f"{_SESSION}/artifacts/{{name:path}}",
    tags=["artifacts"],
    response_model=None,
    responses=_FILE_OR_ADDRESS,
)
async def download_artifact(
    session_id: UUID,
    name: str,
    artifacts: Artifacts,
    gateway: GatewayOf,
    url: AsAddress = False,
) -> Response | SignedUrl:
    """Download a file that code made, by its name."""
    return await _answer(artifacts, await artifacts.newest(session_id, name, "artifacts"), gateway, url=url)


@router.get(
    "/api/artifacts/{artifact_id}",
    tags=["artifacts"],
    response_model=None,
    responses=_FILE_OR_ADDRESS,
)
async def download_artifact_by_id(
    artifact_id: UUID,
    artifacts: Artifacts,
    gateway: GatewayOf,
    url: AsAddress = False,
) -> Response | SignedUrl:
    """Download one version of a file by its id."""
    return await _answer(artifacts, await artifacts.get(artifact_id), gateway, url=url)


@router.get("/api/artifacts/{artifact_id}/versions", tags=["artifacts"])
async def list_versions(
    artifact_id: UUID,
    artifacts: Artifacts,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Offset = 0,
    cursor: Cursor = None,
) -> ArtifactList:
    """List the versions of the file that this is one of, newest first."""
    return ArtifactList.model_validate(await artifacts.versions(artifact_id, limit=limit, offset=offset, cursor=cursor))


@signed.get("/api/objects/{token}", response_class=StreamingResponse)
async def download_signed(token: str, gateway: GatewayOf) -> Response:
    """Download what a signed address of the local store stands for; the address itself is the key."""
    found = await gateway.context.objects.open_signed(token)
    headers = downloads.headers(found.filename, found.content_type, size=found.size)
    return StreamingResponse(found.chunks, headers=headers, media_type=headers["Content-Type"])


async def _answer(
    artifacts: ArtifactService, artifact: Artifact, gateway: Gateway, *, url: bool
) -> Response | SignedUrl:
    """Return the file, or a signed address of it."""
    if url:
        seconds = gateway.context.settings.signed_url_seconds
        return SignedUrl(url=await artifacts.url(artifact), expires_in_seconds=seconds)
    return download(artifact, await artifacts.read(artifact))


def download(artifact: Artifact, chunks: AsyncIterator[bytes]) -> StreamingResponse:
    """Return the answer that is a file, as an attachment that can do nothing."""
    headers = downloads.headers(artifact.name, artifact.content_type, size=artifact.size, sha256=artifact.sha256)
    return StreamingResponse(chunks, headers=headers, media_type=headers["Content-Type"])


def _tag_of(artifact: Artifact) -> str:
    return downloads.tag_of(artifact.sha256)
