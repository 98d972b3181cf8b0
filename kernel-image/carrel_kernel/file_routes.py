"""Routes of files and changes: streamed in both directions, in threads where the disk is touched."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO, Final
from urllib.parse import quote, unquote_to_bytes

from aiohttp import web

from carrel_kernel.errors import DiskFull, PathRefused, TooLarge
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.ranges import etag_of, part_of
from carrel_kernel.replies import reply
from carrel_wire.host import FileInfo, FilesReply

CHUNK_BYTES: Final = 256 * 1024
_CHECK_BYTES: Final = 16 * 1024 * 1024
"""Of an upload between two looks at the room on the disk."""


async def list_files(request: web.Request) -> web.Response:
    """`GET /v1/files`."""
    return reply(FilesReply(files=await request.app[SUPERVISOR].workspace.list()))


async def read(request: web.Request) -> web.StreamResponse:
    """`GET` and `HEAD /v1/files/{path}`: the file, or the one part of it that `Range` asks for."""
    files = request.app[SUPERVISOR].workspace.files
    file, status = await asyncio.to_thread(files.open, path_of(request, "/v1/files/"))
    with file:
        size, etag = status.st_size, etag_of(status)
        asked = request.headers.get("Range") if request.method == "GET" else None
        part = part_of(asked, request.headers.get("If-Range"), size=size, etag=etag)
        response = web.StreamResponse(
            status=206 if part else 200,
            headers={
                **attachment(path_of(request, "/v1/files/").rpartition("/")[2]),
                "Content-Type": "application/octet-stream",
                "Content-Length": str(part.length if part else size),
                "Accept-Ranges": "bytes",
                "ETag": etag,
                **({"Content-Range": part.content_range} if part else {}),
            },
        )
        await response.prepare(request)
        if request.method == "GET":
            await asyncio.to_thread(file.seek, part.start if part else 0)
            if not await _send(file, response, part.length if part else size) and request.transport:
                request.transport.abort()  # it shrank: the promised length cannot be kept, and the reader must see that
                return response
        await response.write_eof()
    return response


async def _send(file: BinaryIO, response: web.StreamResponse, count: int) -> bool:
    """Send so many bytes, though the file may grow meanwhile; whether there were as many."""
    while count and (chunk := await asyncio.to_thread(file.read, min(count, CHUNK_BYTES))):
        await response.write(chunk)
        count -= len(chunk)
    return count == 0


async def write(request: web.Request) -> web.Response:
    """`PUT /v1/files/{path}`: the file is replaced whole, or not at all."""
    workspace = request.app[SUPERVISOR].workspace
    with disk_errors():
        async with workspace.placing(workspace.files.replace(path_of(request, "/v1/files/"))) as upload:
            await receive(request, upload.file)
    return reply(info_of(*upload.placed()[0]), status=201)


def info_of(name: str, status: os.stat_result) -> FileInfo:
    """Return what a caller is told of a file."""
    return FileInfo(path=name, size=status.st_size, modified=status.st_mtime)


async def receive(request: web.Request, file: BinaryIO) -> None:
    """Write a request's body to a file.

    Raises
    ------
    TooLarge
        It is larger than a file may be.
    DiskFull
        The disk is nearly full.
    """
    supervisor = request.app[SUPERVISOR]
    limit = supervisor.settings.file_bytes
    size, checked = 0, -_CHECK_BYTES
    _check_size(request.content_length or 0, limit)
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        if size - checked >= _CHECK_BYTES:
            checked = size
            await asyncio.to_thread(supervisor.workspace.check_room)
        size += len(chunk)
        _check_size(size, limit)
        await asyncio.to_thread(file.write, chunk)


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/files/{path}`."""
    await request.app[SUPERVISOR].workspace.delete(path_of(request, "/v1/files/"))
    return web.Response(status=204)


async def changes(request: web.Request) -> web.Response:
    """`GET /v1/changes?since=`."""
    return reply(await request.app[SUPERVISOR].workspace.changes(request.query.get("since")))


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"a file may have {limit} bytes", limit_bytes=limit)


def path_of(request: web.Request, prefix: str) -> str:
    """Return the name, decoded here and strictly: aiohttp leaves what is no UTF-8 as it is, under another name.

    Raises
    ------
    PathRefused
    """
    try:
        return unquote_to_bytes(request.rel_url.raw_path.removeprefix(prefix)).decode()
    except UnicodeError as error:
        raise PathRefused("a file name must be UTF-8, with `%` escapes") from error


def attachment(name: str) -> dict[str, str]:
    """Return headers with which a file is saved under its name, and never shown as a page."""
    return {
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
    }


@contextmanager
def disk_errors() -> Generator[None]:
    """Turn what the disk says into what the caller is told."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("the workspace's disk is full; delete files first") from error
        raise PathRefused("the file cannot be written there") from error
