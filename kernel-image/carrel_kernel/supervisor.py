"""The host's state: whose it is, its kernels, its executions, and whether it is still wanted.

Before bind it belongs to nobody and runs nothing but a spare interpreter. It never becomes another session's.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import zmq

from carrel_kernel.caps import Allowance, Caps
from carrel_kernel.changes import Workspace
from carrel_kernel.container import ContainerMemory, watch
from carrel_kernel.errors import AlreadyBound, BadRequest, KernelExists, KernelNotFound, TooManyKernels, WrongHost
from carrel_kernel.executions import Execution, Executions
from carrel_kernel.forkserver import ForkServer
from carrel_kernel.kernel import Kernel
from carrel_kernel.limits import thread_count, thread_environment
from carrel_kernel.live import Binding, Place
from carrel_kernel.metrics import Metrics
from carrel_kernel.packages import pip_environment
from carrel_kernel.process import ProcessLimits
from carrel_kernel.settings import Settings
from carrel_kernel.snapshots.service import Snapshots
from carrel_kernel.spares import Spares
from carrel_kernel.surroundings import Surroundings
from carrel_wire.host import BindReply, BindRequest, ExecuteRequest, HostState

MAIN: Final = "main"
_KERNEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FOLDER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MAX_ENV_BYTES: Final = 256 * 1024
_MIN_MEMORY_BYTES: Final = 64 * 1024 * 1024
_HOUSEKEEPING_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Supervisor:
    """One kernel host."""

    def __init__(self, settings: Settings, runtime: Path) -> None:
        self.settings = settings
        self.boot_id = str(uuid.uuid4())
        self.metrics = Metrics()
        self._runtime = runtime
        self._container = ContainerMemory()
        self.zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._work_in(runtime / "unbound" if settings.folder_at_bind else settings.workspace.resolve())
        self.binding: Binding | None = None
        self.connections = 0
        """Open WebSockets and event streams."""
        self.orphaned = asyncio.Event()
        """Set when nobody wants the host any more."""
        self._parent = settings.parent_pid or os.getppid()
        self._kernels: dict[str, Kernel] = {}
        self._fork_server = ForkServer(runtime, settings.preload, self._on_loaded) if settings.fork_server else None
        self._spares = Spares(runtime, self._fork_server, settings.spare_kernels, settings.start_seconds)
        self._caps = Caps(settings.message_bytes, settings.output_bytes, settings.overflow_bytes)
        self._allowance = Allowance(settings.session_output_bytes)
        self._last_call = time.monotonic()
        self._last_activity = time.time()
        self._binding_lock = asyncio.Lock()
        self._housekeeping: asyncio.Future[tuple[None, None]] | None = None

    def _work_in(self, root: Path) -> None:
        settings = self.settings
        self.workspace = Workspace(root)
        self.executions = Executions(
            self.workspace.private,
            self.metrics,
            max_unacknowledged=settings.max_unacknowledged,
            spool_bytes=settings.spool_bytes,
        )
        self.snapshots = Snapshots(
            self.workspace, self.metrics, max_bytes=settings.snapshot_bytes, seconds=settings.snapshot_seconds
        )
        self._place = Place(
            root,
            self._runtime,
            self.zmq_context,
            settings.start_seconds,
            ProcessLimits(
                open_files=settings.max_open_files,
                processes=settings.max_processes,
                file_bytes=settings.max_file_bytes,
            ),
            settings.allowed_imports,
            self._container,
        )

    def _prepare(self) -> None:
        self.workspace.prepare()
        self.snapshots.blobs.prepare()

    async def start(self) -> None:
        """Prepare the workspace and a spare.

        Raises
        ------
        OSError
            The workspace cannot be written.
        """
        await asyncio.to_thread(self._prepare)
        if self._fork_server:
            self._fork_server.start()
        if not self._fork_server or self._fork_server.reason:
            self._spares.fill()
        self._housekeeping = asyncio.gather(self._keep_house(), watch(self._container, self._relieve))

    async def aclose(self) -> None:
        """End the kernels within the grace time; what they put out stays in the spool."""
        if self._housekeeping:
            self._housekeeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._housekeeping
        grace = self.settings.grace_seconds
        closing = [kernel.aclose("the kernel host was stopped", grace_seconds=grace) for kernel in self.kernels]
        await asyncio.gather(self._spares.aclose(), *closing)
        if self._fork_server:
            await self._fork_server.aclose()
        self.zmq_context.destroy(linger=0)

    def _on_loaded(self) -> None:
        self._spares.fill()

    # ------------------------------------------------------------------ whose it is

    @property
    def session_uid(self) -> str | None:
        """Session that the host is bound to."""
        return self.binding.session_uid if self.binding else None

    async def bind(self, request: BindRequest) -> BindReply:
        """Make the host a session's, and start its kernel `main`.

        Raises
        ------
        WrongHost
            The request was meant for another host or another boot of it.
        AlreadyBound
            The host belongs to another session, or the session to another owner.
        BadRequest
            The folder, the environment or the limits make no sense.
        """
        if request.pod_uid != self.settings.host_id:
            raise WrongHost("the request is for another host", host_id=self.settings.host_id)
        if request.boot_id is not None and request.boot_id != self.boot_id:
            raise WrongHost("the host has been restarted; read its state and bind again", boot_id=self.boot_id)
        _check(request)
        if bool(request.folder) != self.settings.folder_at_bind:
            raise BadRequest("a folder is named where the host was started with folder_at_bind, and only there")
        async with self._binding_lock:
            already = self.binding is not None
            if self.binding is None:
                if request.folder:
                    await self._move_to(request.folder)
                await asyncio.to_thread(self.executions.load, request.session_uid)
                env = {
                    **thread_environment(request.cpu_limit),
                    **pip_environment(self.workspace.root),
                    **request.env,
                }
                self.binding = Binding(
                    request.session_uid, env, thread_count(request.cpu_limit), request.memory_limit_bytes
                )
                self.metrics.bound.set(1)
                self._kernels[MAIN] = self._new_kernel(MAIN)
                _log.info("bound", session=request.session_uid)
            elif self.binding.session_uid != request.session_uid:
                raise AlreadyBound("the host belongs to another session; a host never changes its session")
            self.snapshots.bind(request)
        return BindReply(
            host_id=self.settings.host_id,
            boot_id=self.boot_id,
            session_uid=request.session_uid,
            already=already,
        )

    async def _move_to(self, folder: str) -> None:
        root = self.settings.workspace.resolve() / folder
        self._work_in(root)
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise BadRequest("the session's folder cannot be used; is it there, and the host's?") from error

    # ------------------------------------------------------------------ kernels

    @property
    def kernels(self) -> list[Kernel]:
        """All kernels."""
        return list(self._kernels.values())

    def kernel(self, kernel_id: str) -> Kernel:
        """Return a kernel.

        Raises
        ------
        KernelNotFound
        """
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            raise KernelNotFound("there is no such kernel; create it first", kernel=kernel_id[:64])
        return kernel

    def create_kernel(self, kernel_id: str) -> Kernel:
        """Start another kernel in the same workspace.

        Raises
        ------
        BadRequest, KernelExists, TooManyKernels
        """
        if not _KERNEL_ID.fullmatch(kernel_id):
            raise BadRequest("a kernel id is 1 to 64 letters, digits, `-` or `_`")
        if kernel_id in self._kernels:
            raise KernelExists("there is a kernel of that id already", kernel=kernel_id)
        if len(self._kernels) >= self.settings.max_kernels:
            raise TooManyKernels(f"a host has at most {self.settings.max_kernels} kernels; delete one first")
        kernel = self._kernels[kernel_id] = self._new_kernel(kernel_id)
        return kernel

    async def delete_kernel(self, kernel_id: str) -> None:
        """End a kernel.

        Raises
        ------
        KernelNotFound
        """
        kernel = self.kernel(kernel_id)
        del self._kernels[kernel_id]
        await kernel.aclose("the kernel was deleted")

    def _new_kernel(self, kernel_id: str) -> Kernel:
        if self.binding is None:  # routes refuse before
            raise KernelNotFound("an unbound host has no kernels")
        settings = self.settings
        return Kernel(
            kernel_id,
            Surroundings(
                place=self._place,
                binding=self.binding,
                workspace=self.workspace,
                metrics=self.metrics,
                take_spare=self._spares.take,
                max_queue=settings.max_queue,
                hung_seconds=settings.hung_seconds,
                caps=self._caps,
                allowance=self._allowance,
            ),
        )

    # ------------------------------------------------------------------ executions

    def execute(self, kernel_id: str, execution_id: str, request: ExecuteRequest) -> Execution:
        """Return the execution of an id, queued now when the id is new. Nothing is awaited between claim and queue.

        Raises
        ------
        HostError
            It was refused and has not run.
        """
        if request.timeout_seconds is not None and not request.timeout_seconds > 0:
            raise BadRequest("timeout_seconds must be greater than 0")
        kernel = self._kernels.get(kernel_id)
        execution, claim = self.executions.claim(
            execution_id,
            kernel_id,
            kernel.incarnation if kernel else "",
            request,
            admit=lambda: self.kernel(kernel_id).check_incarnation(request.incarnation),
        )
        if claim == "new":
            try:
                self.kernel(kernel_id).submit(execution)
            except BaseException:
                self.executions.discard(execution)
                raise
        return execution

    def execution(self, kernel_id: str, execution_id: str) -> Execution:
        """Return a known execution, whose kernel may be gone.

        Raises
        ------
        HostError
        """
        if kernel_id not in self._kernels and not self.executions.knows(execution_id):
            self.kernel(kernel_id)
        return self.executions.get(execution_id, kernel_id)

    # ------------------------------------------------------------------ the host

    def called(self) -> None:
        """Take note of an authenticated call."""
        self._last_call = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether any kernel runs something."""
        return any(kernel.busy for kernel in self._kernels.values())

    async def state(self) -> HostState:
        """Return what the host is and does."""
        kernels = [kernel.info() for kernel in self.kernels]
        return HostState(
            host_id=self.settings.host_id,
            boot_id=self.boot_id,
            session_uid=self.session_uid,
            kernels=kernels,
            last_activity=max([self._last_activity, *(info.last_activity for info in kernels)]),
            busy=self.busy,
            connections=self.connections,
            disk_used_bytes=await self.workspace.disk_used_bytes(),
            unacknowledged=self.executions.unacknowledged(),
            fresh_because=self._spares.fresh_because,
            warm=self._spares.warm,
        )

    def measure(self) -> None:
        """Set the gauges of the metrics."""
        self.executions.measure()
        self.metrics.kernels.set(len(self._kernels))
        self.metrics.busy.set(sum(kernel.busy for kernel in self._kernels.values()))
        self.metrics.connections.set(self.connections)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            for kernel in self.kernels:
                await kernel.check()
            self._spares.reap_orphans()
            await self.snapshots.sweep()
            if self.busy or self.connections:
                self.called()
            elif why := self._why_orphaned():
                _log.info("orphaned", reason=why)
                self.orphaned.set()

    def _relieve(self, limit_bytes: int) -> None:
        """End the kernel that uses most, before the system ends anything; small ones are not what fills a container."""
        hog = max(self.kernels, key=lambda kernel: kernel.memory_bytes, default=None)
        if hog and hog.memory_bytes > limit_bytes // 10:
            _log.warning("container_nearly_out_of_memory", kernel=hog.id, limit_bytes=limit_bytes)
            hog.relieve()

    def _why_orphaned(self) -> str | None:
        """Return why the host shall end; none while somebody wants it, or may."""
        if self.binding is None:
            return "whoever started it ended before it was bound" if os.getppid() != self._parent else None
        timeout = self.settings.orphan_timeout
        too_long = timeout and time.monotonic() - self._last_call > timeout
        return f"nobody called for {timeout:g} s" if too_long else None


def _check(request: BindRequest) -> None:
    if not request.session_uid:
        raise BadRequest("session_uid must not be empty")
    if request.memory_limit_bytes is not None and request.memory_limit_bytes < _MIN_MEMORY_BYTES:
        raise BadRequest(f"memory_limit_bytes must be at least {_MIN_MEMORY_BYTES}: an interpreter needs as much")
    if request.cpu_limit is not None and not 0 < request.cpu_limit < 10_000:
        raise BadRequest("cpu_limit must be a number of CPUs greater than 0")
    if request.folder is not None and not _FOLDER.fullmatch(request.folder):
        raise BadRequest("folder is one name: letters, digits, `-` or `_`")
    _check_environment(request.env)


def _check_environment(env: dict[str, str]) -> None:
    size = sum(len(name) + len(value) for name, value in env.items())
    if size > _MAX_ENV_BYTES:
        raise BadRequest(f"env is larger than {_MAX_ENV_BYTES} characters")
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise BadRequest("a variable's name is letters, digits and `_`, and its value has no NUL", name=name[:64])
