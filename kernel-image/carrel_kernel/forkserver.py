"""The host's side of the zygote (`inside.zygote`): has it forked into kernels, and starts another when it ends.

When there is none to be had, `reason` says why, and kernels are fresh interpreters. Linux only: a forked kernel becomes
the host's own child because the host adopts orphans.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from carrel_kernel.errors import KernelUnavailable
from carrel_kernel.process import Exit, KernelProcess, spawn

_ZYGOTE: Final = Path(__file__).parent / "inside" / "zygote.py"
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_ANSWER_SECONDS: Final = 10.0
"""It answers within milliseconds."""
_IMPORT_SECONDS: Final = 60.0
"""While it still imports, it answers between two modules."""
_MIN_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 60.0
_MESSAGE_BYTES: Final = 65536

_log = structlog.get_logger(__name__)


class ForkServer:
    """One zygote at a time; `on_loaded` is called when one has imported everything."""

    def __init__(self, caches: Path, preload: Sequence[str], on_loaded: Callable[[], None]) -> None:
        self.reason: str | None = "the fork server has not been started"
        """Why a kernel that is wanted now will be a fresh interpreter; none when it will be a fork."""
        self.missing: dict[str, str] = {}
        """Modules that could not be imported ahead, and why."""
        self.restarts = 0
        self._caches = caches
        self._preload = list(preload)
        self._on_loaded = on_loaded
        self._loaded = False
        self._host: socket.socket | None = None
        self._answers: deque[asyncio.Future[int]] = deque()
        self._exit: Exit | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, when there is one."""
        return self._exit.pid if self._exit and not self._exit.code.done() else None

    @property
    def loaded(self) -> bool:
        """Whether everything has been imported."""
        return self._loaded

    def start(self) -> None:
        """Start the zygote, and others after it."""
        if sys.platform != "linux":
            self._refuse("the fork server needs Linux")
        elif error := _adopt_orphans():
            self._refuse(f"the system does not let the host adopt orphans: {error}")
        else:
            self._try()
            self._keeping = asyncio.create_task(self._keep())

    async def fork(self) -> KernelProcess:
        """Return a new process.

        Raises
        ------
        KernelUnavailable
            There is no zygote, or it cannot fork; `reason` says why.
        """
        if self._host is None:
            raise KernelUnavailable(self.reason or "the fork server has ended")
        ours, theirs = socket.socketpair()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            with theirs:
                socket.send_fds(self._host, [b"fork"], [theirs.fileno()])
            self._answers.append(answer)
            async with asyncio.timeout(_ANSWER_SECONDS if self._loaded else _IMPORT_SECONDS):
                return KernelProcess(await answer, ours)
        except (TimeoutError, OSError) as error:
            ours.close()
            self._refuse(
                "the fork server did not answer"
                if isinstance(error, TimeoutError)
                else f"the fork server cannot be reached: {error}"
            )
            self._kill()
            raise KernelUnavailable(self.reason or "the fork server has ended") from error
        except BaseException:  # a process that it makes nevertheless ends with the stream
            ours.close()
            raise

    async def aclose(self) -> None:
        """End the zygote."""
        if self._keeping:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        self._kill()
        if self._exit:
            await self._exit.code

    # ------------------------------------------------------------------ its life

    async def _keep(self) -> None:
        pause = _MIN_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            if self._exit:
                code = await asyncio.shield(self._exit.code)
                self._hang_up()
                if self.reason is None:
                    self._refuse(f"the fork server ended with code {code}")
            lasted = time.monotonic() - began
            pause = _MIN_PAUSE_SECONDS if lasted > _MAX_PAUSE_SECONDS else min(pause * 2, _MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause)
            self.restarts += 1
            self._try()

    def _try(self) -> None:
        try:
            self._spawn()
        except KernelUnavailable as error:
            self._exit = None
            self._refuse(error.message)

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                spawned = spawn(_ZYGOTE, [str(os.getpid()), *self._preload], theirs, self._caches)
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._exit = Exit(spawned.pid, spawned)
        self._host, self.reason, self._loaded = ours, None, False
        asyncio.get_running_loop().add_reader(ours.fileno(), self._on_message)

    def _on_message(self) -> None:
        if self._host is None:
            return
        with suppress(BlockingIOError):
            try:
                message: dict[str, Any] = msgspec.json.decode(self._host.recv(_MESSAGE_BYTES) or b"{}")
            except (OSError, msgspec.DecodeError):
                message = {}
            self._on(message)

    def _on(self, message: dict[str, Any]) -> None:
        match message:
            case {"pid": int(pid)} if self._answers:
                _settle(self._answers.popleft(), pid)
            case {"refused": str(why)} if self._answers:
                _log.warning("not_forked", reason=why)
                _fail(self._answers.popleft(), why)
            case {"missing": _}:
                self._loaded = True
                self.missing.update(message["missing"])
                _log.info("fork_server_loaded", modules=self._preload, missing=self.missing)
                self._on_loaded()
            case {"unfit": str(module)}:
                self._preload = [name for name in self._preload if name != module]
                self.missing[module] = "importing it starts threads"
                self._refuse(f"importing {module} starts threads; another fork server will do without it")
            case _:  # it has ended
                self._hang_up()

    def _hang_up(self) -> None:
        if self._host:
            asyncio.get_running_loop().remove_reader(self._host.fileno())
            self._host.close()
            self._host = None
        while self._answers:
            _fail(self._answers.popleft(), self.reason or "the fork server ended")

    def _kill(self) -> None:
        self._hang_up()
        if self._exit and not self._exit.code.done():
            with suppress(ProcessLookupError):
                os.kill(self._exit.pid, signal.SIGKILL)

    def _refuse(self, reason: str) -> None:
        self.reason = reason
        _log.warning("kernels_are_fresh", reason=reason)


def _settle(answer: asyncio.Future[int], pid: int) -> None:
    if not answer.done():
        answer.set_result(pid)


def _fail(answer: asyncio.Future[int], why: str) -> None:
    if not answer.done():
        answer.set_exception(KernelUnavailable(why))


def _adopt_orphans() -> str | None:
    """Become the parent of descendants that lose theirs; why not, if so. Source: prctl(2)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return os.strerror(ctypes.get_errno())
    return None
