"""Uploads in parts, by the protocol that tus.io calls 1.0.0: core, creation, expiration, termination.

Source: tus.io/protocols/resumable-upload, version 1.0.0. OPTIONS is not answered: what there is stands in the
documentation.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from email.utils import format_datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response, status
from starlette.requests import ClientDisconnect

from carrel_gateway.dependencies import Executions, IdempotencyKey, Sessions, Uploads, require_active
from carrel_gateway.errors import InvalidInput, PreconditionFailed
from carrel_gateway.execution.service import ExecutionService
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.uploads.schemas import UploadOut
from carrel_gateway.uploads.service import LIFE, Upload, UploadService

router = APIRouter(route_class=IdempotentRoute, tags=["files"])
VERSION: Final = "1.0.0"
CHUNK_TYPE: Final = "application/offset+octet-stream"
REQUEST_HEADERS: Final = ("Tus-Resumable", "Upload-Length", "Upload-Metadata", "Upload-Offset")
ANSWER_HEADERS: Final = (
    "Tus-Resumable",
    "Upload-Length",
    "Upload-Offset",
    "Upload-Expires",
    "Location",
    "Carrel-Artifact-Id",
)
"""What pages of other origins, which settings allow, may send and read."""
_UPLOADS: Final = "/api/sessions/{session_id}/uploads"
_ONE: Final = f"{_UPLOADS}/{{upload_id}}"
_CHUNK: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {CHUNK_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
Resumable = Annotated[str | None, Header(alias="Tus-Resumable", description=f"The protocol's version, {VERSION}.")]
Length = Annotated[int | None, Header(alias="Upload-Length", ge=0, le=2**53, description="Bytes of the whole file.")]
UploadOffset = Annotated[int | None, Header(alias="Upload-Offset", ge=0, le=2**53, description="Bytes that have come.")]
Metadata = Annotated[
    str,
    Header(
        alias="Upload-Metadata",
        max_length=8000,
        description="`filename` and, if known, `filetype`, each with its value in base64; separated by commas.",
    ),
]


@router.post(_UPLOADS, status_code=status.HTTP_201_CREATED)
async def begin_upload(
    session_id: UUID,
    response: Response,
    sessions: Sessions,
    uploads: Uploads,
    executions: Executions,
    length: Length = None,
    metadata: Metadata = "",
    version: Resumable = None,
) -> UploadOut:
    """Begin an upload in parts; `Location` is where to send them."""
    await require_active(sessions, session_id)
    _require_version(version)
    if length is None:
        raise InvalidInput("Upload-Length must say how many bytes the whole file has", code="length_needed")
    named = metadata_of(metadata)
    upload = await uploads.begin(
        session_id, name=named.get("filename", ""), content_type=named.get("filetype"), length=length
    )
    upload = await _finished(uploads, executions, upload)
    response.headers.update(_headers(upload))
    response.headers["Location"] = _ONE.format(session_id=session_id, upload_id=upload.id)
    return UploadOut.model_validate(upload)


@router.head(_ONE, include_in_schema=False)
@router.get(_ONE)
async def get_upload(
    session_id: UUID,
    upload_id: UUID,
    request: Request,
    response: Response,
    sessions: Sessions,
    uploads: Uploads,
    executions: Executions,
    version: Resumable = None,
) -> UploadOut:
    """How far an upload has come, also as headers (and with `HEAD` as these alone), and what file it has become."""
    await sessions.get(session_id)
    if request.method == "HEAD":
        _require_version(version)
    upload = await _finished(uploads, executions, await uploads.get(session_id, upload_id))
    response.headers.update({**_headers(upload), "Cache-Control": "no-store"})
    return UploadOut.model_validate(upload)


async def _named_by_offset(idempotency_key: IdempotencyKey = None) -> None:
    """Take a key as every write does; a part that has come already is known by its offset."""
    del idempotency_key


@router.patch(
    _ONE, status_code=status.HTTP_204_NO_CONTENT, openapi_extra=_CHUNK, dependencies=[Depends(_named_by_offset)]
)
async def append_to_upload(
    session_id: UUID,
    upload_id: UUID,
    request: Request,
    sessions: Sessions,
    uploads: Uploads,
    executions: Executions,
    offset: UploadOffset = None,
    content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
    version: Resumable = None,
) -> Response:
    """Send what comes next, as much as is wanted; with the last byte code finds the file at `data/<name>`."""
    await require_active(sessions, session_id)
    _require_version(version)
    if (content_type or "").partition(";")[0].strip().lower() != CHUNK_TYPE:
        raise InvalidInput(f"send the bytes as Content-Type: {CHUNK_TYPE}", code="chunk_expected")
    if offset is None:
        raise InvalidInput("Upload-Offset must say at which byte the part begins", code="offset_needed")
    upload = await uploads.append(session_id, upload_id, offset, _arriving(request))
    upload = await _finished(uploads, executions, upload)
    return Response(status_code=status.HTTP_204_NO_CONTENT, headers=_headers(upload))


@router.delete(_ONE, status_code=status.HTTP_204_NO_CONTENT)
async def give_up_upload(
    session_id: UUID,
    upload_id: UUID,
    sessions: Sessions,
    uploads: Uploads,
    version: Resumable = None,
) -> Response:
    """Give an upload up; what has come of it is removed. The file of one that is done stays."""
    await sessions.get(session_id)
    _require_version(version)
    await uploads.give_up(session_id, upload_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT, headers={"Tus-Resumable": VERSION})


def metadata_of(header: str) -> dict[str, str]:
    """Return the names and values of an `Upload-Metadata`.

    Raises
    ------
    InvalidInput
        It is not in the protocol's form.
    """
    found: dict[str, str] = {}
    for pair in filter(None, (pair.strip() for pair in header.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidInput(
                "Upload-Metadata must be names, each with its value as UTF-8 in base64", code="invalid_metadata"
            ) from error
    return found


def _require_version(version: str | None) -> None:
    if version != VERSION:
        raise PreconditionFailed(f"send Tus-Resumable: {VERSION}; no other version is spoken", code="tus_version")


def _headers(upload: Upload) -> dict[str, str]:
    headers = {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(upload.received),
        "Upload-Length": str(upload.length),
    }
    if upload.state == "open":
        headers["Upload-Expires"] = format_datetime(upload.updated_at + LIFE, usegmt=True)
    if upload.artifact_id:
        headers["Carrel-Artifact-Id"] = str(upload.artifact_id)
    return headers


async def _finished(uploads: UploadService, executions: ExecutionService, upload: Upload) -> Upload:
    """Make a whole upload a file, in the workspace of a live kernel too; a gateway that died may have left one."""
    if upload.state == "open" and upload.is_whole:
        artifact = await uploads.finish(upload)
        if artifact:
            await executions.place_file(upload.session_id, artifact)
        upload = await uploads.get(upload.session_id, upload.id)
    return upload


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as far as it comes: what a cut connection has brought counts."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        return
