"""Routes of files and changes: streamed in both directions, in threads where the disk is touched."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from aiohttp import web

from carrel_kernel.errors import DiskFull, PathRefused, TooLarge
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.replies import reply
from carrel_wire.host import FileInfo, FilesReply

_CHUNK: Final = 256 * 1024


async def list_files(request: web.Request) -> web.Response:
    """`GET /v1/files`."""
    return reply(FilesReply(files=await request.app[SUPERVISOR].workspace.list()))


async def read(request: web.Request) -> web.StreamResponse:
    """`GET /v1/files/{path}`."""
    files = request.app[SUPERVISOR].workspace.files
    file, size = await asyncio.to_thread(files.open, _path(request))
    with file:
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "X-Content-Type-Options": "nosniff",
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(_path(request).rpartition('/')[2])}",
            }
        )
        await response.prepare(request)
        left = size  # a file that grows meanwhile is sent as it was
        while left and (chunk := await asyncio.to_thread(file.read, min(left, _CHUNK))):
            await response.write(chunk)
            left -= len(chunk)
        if left and request.transport:
            request.transport.abort()  # it shrank: the promised length cannot be kept, and the reader must see that
            return response
        await response.write_eof()
    return response


async def write(request: web.Request) -> web.Response:
    """`PUT /v1/files/{path}`: the file is replaced whole, or not at all."""
    supervisor = request.app[SUPERVISOR]
    workspace, limit = supervisor.workspace, supervisor.settings.file_bytes
    _check_size(request.content_length or 0, limit)
    if not await asyncio.to_thread(workspace.may_write):
        raise DiskFull("the workspace's disk is nearly full; delete files first")
    size = 0
    with _disk_errors():
        replacement = workspace.files.replace(_path(request))
        file, name = await asyncio.to_thread(replacement.__enter__)
        try:
            async for chunk in request.content.iter_chunked(_CHUNK):
                size += len(chunk)
                _check_size(size, limit)
                await asyncio.to_thread(file.write, chunk)
        except BaseException as error:
            await asyncio.to_thread(replacement.__exit__, type(error), error, error.__traceback__)
            raise
        await asyncio.to_thread(replacement.__exit__, None, None, None)
        status = await asyncio.to_thread((workspace.root / name).lstat)
    workspace.note(name, status)
    return reply(FileInfo(path=name, size=size, modified=status.st_mtime), status=201)


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/files/{path}`."""
    workspace = request.app[SUPERVISOR].workspace
    await asyncio.to_thread(workspace.files.delete, _path(request))
    workspace.note(_path(request), None)
    return web.Response(status=204)


async def changes(request: web.Request) -> web.Response:
    """`GET /v1/changes?since=`."""
    return reply(await request.app[SUPERVISOR].workspace.changes(request.query.get("since")))


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"a file may have {limit} bytes", limit_bytes=limit)


def _path(request: web.Request) -> str:
    """Return the name, decoded here and strictly: aiohttp leaves what is no UTF-8 as it is, under another name.

    Raises
    ------
    PathRefused
    """
    try:
        return unquote_to_bytes(request.rel_url.raw_path.removeprefix("/v1/files/")).decode()
    except UnicodeError as error:
        raise PathRefused("a file name must be UTF-8, with `%` escapes") from error


@contextmanager
def _disk_errors() -> Generator[None]:
    """Turn what the disk says into what the caller is told."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("the workspace's disk is full; delete files first") from error
        raise PathRefused("the file cannot be written there") from error
