"""Routes of archives: a folder as one `.tar.gz`, made while it is sent, and an archive unpacked into a new folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from aiohttp import web

from carrel_kernel import archive_tar
from carrel_kernel.archives import Budget, unpack
from carrel_kernel.changes import MAX_FILES
from carrel_kernel.errors import FileNotFound, PathRefused, TooLarge
from carrel_kernel.file_routes import attachment, disk_errors, info_of, path_of, receive
from carrel_kernel.files import Files
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.names import is_unicode
from carrel_kernel.replies import reply
from carrel_wire.host import FilesReply

_PREFIX: Final = "/v1/archives/"


async def download(request: web.Request) -> web.StreamResponse:
    """`GET /v1/archives` and `GET /v1/archives/{path}`: the files of the workspace or of one of its folders."""
    supervisor = request.app[SUPERVISOR]
    name = path_of(request, _PREFIX) if "path" in request.match_info else ""
    files = supervisor.workspace.files
    members = await asyncio.to_thread(_members, files, name, supervisor.settings.archive_bytes)
    chunks = archive_tar.pack(_opened(files, members))
    shown = f"{name.rpartition('/')[2] or 'workspace'}.tar.gz"
    response = web.StreamResponse(headers={**attachment(shown), "Content-Type": "application/gzip"})
    await response.prepare(request)
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            if chunk:
                await response.write(chunk)
    except (archive_tar.ShrunkError, OSError):
        if request.transport:
            request.transport.abort()  # whoever reads must not take it for a whole archive
        return response
    await response.write_eof()
    return response


def _members(files: Files, name: str, limit: int) -> list[tuple[str, str, int]]:
    """Return what is to be packed: name in the archive, name in the workspace, and size.

    Raises
    ------
    PathRefused, FileNotFound, TooLarge
    """
    found = [(below, path, status.st_size) for below, path, status in files.below(name, MAX_FILES) if is_unicode(path)]
    if sum(size for _, _, size in found) > limit:
        raise TooLarge(f"an archive may have {limit} bytes of content; ask for smaller folders", limit_bytes=limit)
    return found


def _opened(files: Files, members: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, BinaryIO, int, float]]:
    """Yield each file when its turn comes: none that has gone meanwhile, and no more of one than it had."""
    for below, path, size in members:
        try:
            file, status = files.open(path)
        except (FileNotFound, PathRefused):
            continue
        yield below, file, min(size, status.st_size), status.st_mtime


async def upload(request: web.Request) -> web.Response:
    """`PUT /v1/archives/{path}`: all files of the archive in a new folder, or nothing."""
    supervisor = request.app[SUPERVISOR]
    workspace = supervisor.workspace
    with disk_errors():
        async with workspace.placing(workspace.files.new_folder(path_of(request, _PREFIX))) as folder:
            file = await asyncio.to_thread(workspace.files.scratch)
            try:
                await receive(request, file)
                budget = Budget(file.tell(), supervisor.settings.archive_bytes, workspace.check_room)
                async with workspace.unpacking:
                    await asyncio.to_thread(unpack, file, folder, budget)
            finally:
                await asyncio.to_thread(file.close)
    infos = [info_of(*placed) for placed in folder.placed()]
    return reply(FilesReply(files=sorted(infos, key=lambda info: info.path)), status=201)
