"""Routes of kernels: contexts, interrupt, restart, variables, completion and documentation."""

from __future__ import annotations

from aiohttp import web

from carrel_kernel import introspection
from carrel_kernel.kernel import Kernel
from carrel_kernel.keys import SUPERVISOR
from carrel_kernel.replies import body_of, reply
from carrel_wire.host import CompleteRequest, CreateKernelRequest, InterruptReply


def kernel_of(request: web.Request) -> Kernel:
    """Return the kernel that the path names.

    Raises
    ------
    KernelNotFound
    """
    return request.app[SUPERVISOR].kernel(request.match_info["kernel"])


async def list_kernels(request: web.Request) -> web.Response:
    """`GET /v1/kernels`."""
    return reply([kernel.info() for kernel in request.app[SUPERVISOR].kernels])


async def create(request: web.Request) -> web.Response:
    """`POST /v1/kernels`; answers when the kernel can be used."""
    wanted = await body_of(request, CreateKernelRequest)
    kernel = request.app[SUPERVISOR].create_kernel(wanted.id)
    await kernel.live()
    return reply(kernel.info(), status=201)


async def get(request: web.Request) -> web.Response:
    """`GET /v1/kernels/{kernel}`."""
    return reply(kernel_of(request).info())


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v1/kernels/{kernel}`."""
    await request.app[SUPERVISOR].delete_kernel(request.match_info["kernel"])
    return web.Response(status=204)


async def interrupt(request: web.Request) -> web.Response:
    """`POST …/interrupt`; answers at once, the ladder goes on by itself."""
    kernel = kernel_of(request)
    return reply(InterruptReply(kernel_id=kernel.id, was_busy=kernel.interrupt()))


async def restart(request: web.Request) -> web.Response:
    """`POST …/restart`; answers when the new process can be used."""
    kernel = kernel_of(request)
    await kernel.restart()
    return reply(kernel.info())


async def variables(request: web.Request) -> web.Response:
    """`GET …/variables`."""
    return reply(await introspection.variables(kernel_of(request)))


async def complete(request: web.Request) -> web.Response:
    """`POST …/complete`."""
    kernel = kernel_of(request)
    return reply(await introspection.complete(kernel, await body_of(request, CompleteRequest)))


async def inspect(request: web.Request) -> web.Response:
    """`POST …/inspect`."""
    kernel = kernel_of(request)
    return reply(await introspection.inspect(kernel, await body_of(request, CompleteRequest)))
