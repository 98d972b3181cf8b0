"""Routes of snapshots: take, restore, seal, and their contents, streamed in both directions.

Whoever reads a content gets all of it or a cut connection: its digest is compared before the last part is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from typing import Final

from aiohttp import web

from carrel_kernel.errors import BadRequest
from carrel_kernel.file_routes import disk_errors
from carrel_kernel.kernel_routes import kernel_of
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.replies import body_of, reply
from carrel_kernel.snapshots.blobs import CHUNK_BYTES
from carrel_wire.snapshots import MissingReply, RestoreRequest, SealRequest, SnapshotRequest

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


async def take(request: web.Request) -> web.Response:
    """`POST …/snapshot`."""
    kernel = kernel_of(request)
    wanted = await body_of(request, SnapshotRequest)
    return reply(await request.app[SUPERVISOR].snapshots.take(kernel, wanted.timeout_seconds))


async def restore(request: web.Request) -> web.Response:
    """`POST …/restore`."""
    kernel = kernel_of(request)
    wanted = await body_of(request, RestoreRequest)
    return reply(
        await request.app[SUPERVISOR].snapshots.restore(
            kernel, wanted.manifest, wanted.timeout_seconds, keep_files=wanted.keep_files
        )
    )


async def seal(request: web.Request) -> web.Response:
    """`POST …/seal`."""
    kernel = kernel_of(request)
    wanted = await body_of(request, SealRequest)
    await request.app[SUPERVISOR].snapshots.seal(kernel, wanted.digest)
    return web.Response(status=204)


async def unseal(request: web.Request) -> web.Response:
    """`DELETE …/seal`."""
    request.app[SUPERVISOR].snapshots.unseal(kernel_of(request))
    return web.Response(status=204)


async def missing(request: web.Request) -> web.Response:
    """`POST /v1/snapshots/missing`."""
    wanted = await body_of(request, RestoreRequest)
    return reply(
        MissingReply(
            missing=await request.app[SUPERVISOR].snapshots.missing(wanted.manifest, keep_files=wanted.keep_files)
        )
    )


async def read(request: web.Request) -> web.StreamResponse:
    """`GET /v1/snapshots/blobs/{sha256}`."""
    digest = _digest(request)
    file = await asyncio.to_thread(request.app[SUPERVISOR].snapshots.open, digest)
    with file:
        left = os.fstat(file.fileno()).st_size
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Length": str(left)})
        await response.prepare(request)
        seen = hashlib.sha256()
        while left and (chunk := await asyncio.to_thread(file.read, min(left, CHUNK_BYTES))):
            seen.update(chunk)
            left -= len(chunk)
            if not left and seen.hexdigest() != digest:
                break
            await response.write(chunk)
        if seen.hexdigest() != digest:
            if request.transport:
                request.transport.abort()  # it has changed: the reader must not take it for the content
            return response
        await response.write_eof()
    return response


async def write(request: web.Request) -> web.Response:
    """`PUT /v1/snapshots/blobs/{sha256}`."""
    supervisor = request.app[SUPERVISOR]
    await asyncio.to_thread(supervisor.workspace.check_room)
    writing = supervisor.snapshots.blobs.write(_digest(request))
    with disk_errors():
        incoming = await asyncio.to_thread(writing.__enter__)
        try:
            async for chunk in request.content.iter_chunked(CHUNK_BYTES):
                await asyncio.to_thread(incoming.write, chunk)
        except BaseException as error:
            await asyncio.to_thread(writing.__exit__, type(error), error, error.__traceback__)
            raise
        await asyncio.to_thread(writing.__exit__, None, None, None)
    return web.Response(status=204)


def _digest(request: web.Request) -> str:
    digest = request.match_info["sha256"]
    if not _DIGEST.fullmatch(digest):
        raise BadRequest("a content is named by its SHA-256, in hexadecimal")
    return digest
