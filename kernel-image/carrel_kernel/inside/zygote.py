"""The zygote: a process that has imported what kernels need, has one thread, and is forked into kernels.

Run by path as a script: `zygote.py HOST_PID MODULE…`, with a socket to the host as standard input. Each request of the
host carries the descriptor of a new kernel's stream; the answer says the new process's id, or why there is none.
Requests are answered between two imports already: who waits for a kernel gets one that has less imported.

A kernel is the host's child, not the zygote's, and outlives it: it is forked twice, and the host adopts orphans
(`PR_SET_CHILD_SUBREAPER`). A live kernel is never forked: it has a dozen threads.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import sys
from pathlib import Path
from typing import Any, Final

OF_EVERY_KERNEL: Final = (
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "tornado.platform.asyncio",
    "tornado.queues",
    "encodings.idna",
)
"""What IPython's kernel imports only when it starts."""
_REHEARSAL: Final = "carrel_kernel.inside.rehearsal"


class NotFit(Exception):
    """A module that was imported makes forking unsafe."""


def tell(host: socket.socket, **what: Any) -> None:
    """Send a message to the host."""
    host.send(json.dumps(what).encode())


def fork() -> int:
    """Return the id of a new process that is nobody's child here, and 0 in it.

    Raises
    ------
    OSError
        The system has no process or memory left.
    """
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid == 0:
            os.close(read)
            os.close(write)
            return 0
        os.write(write, str(pid).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        pid = int(answer.read() or 0)
    os.waitpid(between, 0)
    if not pid:
        raise OSError("the system has no process or memory left")
    return pid


def serve(host: socket.socket, *, wait: bool) -> socket.socket | None:
    """Answer requests, all that have come or for ever; in a new process return its stream to the host."""
    from carrel_kernel.inside import system  # noqa: PLC0415  see `main`

    while wait or select.select([host], [], [], 0)[0]:
        data, descriptors, _, _ = socket.recv_fds(host, 64, 1)
        if not data:
            os._exit(0)
        stream = socket.socket(fileno=descriptors[0])
        if (count := system.thread_count()) != 1:
            tell(host, refused=f"the fork server has {count} threads")
        else:
            try:
                pid = fork()
            except OSError as error:
                tell(host, refused=f"the fork server cannot fork: {error}")
            else:
                if pid == 0:
                    return stream
                tell(host, pid=pid)
        stream.close()
    return None


def preload(host: socket.socket, modules: list[str]) -> socket.socket | None:
    """Import modules, and answer requests between them; in a new process return its stream to the host.

    Raises
    ------
    NotFit
        A module started threads.
    """
    from carrel_kernel.inside import system, threads  # noqa: PLC0415  see `main`

    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as IPython's kernel sets it
    threads.forbid()
    missing: dict[str, str] = {}
    for name in (*OF_EVERY_KERNEL, *modules, _REHEARSAL):
        if stream := serve(host, wait=False):
            return stream
        try:
            module = importlib.import_module(name)
            if name == _REHEARSAL:
                module.rehearse()
        except Exception as error:  # noqa: BLE001  a library that cannot be imported costs its own head start
            missing[name] = f"{type(error).__name__}: {error}"[:200]
        if (count := system.thread_count()) != 1:
            tell(host, unfit=name, threads=count)
            raise NotFit(name)
    gc.collect()
    gc.freeze()  # collections in a kernel then leave the shared pages alone
    tell(host, missing=missing)
    return None


def main() -> None:
    """Be the zygote, and a kernel in each process forked from it."""
    gc.disable()  # what is imported stays, and is frozen in the end
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from carrel_kernel.inside import app, system, threads  # noqa: PLC0415  only now are they found

    del sys.path[0]  # for the lines above alone
    system.inherit_nothing()
    system.let_memory_be_read(False)  # a kernel must not change those that come after it
    host_pid = int(sys.argv[1])
    system.die_with(host_pid)
    host = socket.socket(fileno=0)
    try:
        stream = preload(host, sys.argv[2:]) or serve(host, wait=True)
    except NotFit:
        return
    if stream is None:
        return
    gc.enable()
    os.setsid()
    host.detach()  # descriptor 0, which `run` makes the null device
    system.inherit_nothing(stream.fileno())
    system.let_memory_be_read(True)
    threads.forget()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own generator does so by itself
    app.run(stream, host_pid)


if __name__ == "__main__":
    main()
