"""The process of a kernel: imports what every kernel needs, waits for its handover, then is a plain IPython kernel.

Run by path as a script: `child.py PARENT_PID`. It speaks to the host by lines on its standard output (`spare` when it
can take a handover, `ready` when its sockets listen) and gets the handover as one line of JSON on its standard input;
then both are the null device. It decides nothing by itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import zmq
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_IOPUB_QUEUE: Final = 256
"""Messages that wait for the host. When they are full, printing waits: nothing is lost and memory is bounded."""


class CarrelKernelApp(IPKernelApp):
    """IPython's kernel application, with an output socket that drops nothing and welcomes every subscriber.

    Without `XPUB_VERBOSE` it learns of the first one only, and later ones do not know from when on they miss nothing.
    """

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """Make the output socket: options must be set before it is bound."""
        options: dict[int, int] = {zmq.SNDHWM: _IOPUB_QUEUE, zmq.XPUB_NODROP: 1, zmq.XPUB_VERBOSE: 1}
        context.sockopts.update(options)
        try:
            super().init_iopub(context)
        finally:
            for option in options:
                context.sockopts.pop(option, None)


def die_with(parent: int) -> None:
    """End this process when its parent ends, however that happens. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def inherit_nothing() -> None:
    """Close every descriptor but the standard ones: uvloop leaves a second one of the host's log open in a child."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  numbers are wanted, and no paths
        if int(name) > 2:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(int(name))


def configuration(connection_file: str, stream_class: str) -> Config:
    """Return the kernel's configuration."""
    return Config(
        {
            "IPKernelApp": {
                "connection_file": connection_file,
                "log_level": "CRITICAL",
                "outstream_class": stream_class,
            },
            "IPythonKernel": {"_execute_sleep": 0.0},  # a workaround for lost output, which cannot be lost here
            "HistoryManager": {"enabled": False},  # the gateway keeps the history; a database here is a file to lock
            "IPCompleter": {"use_jedi": False},  # it can take seconds, and completion has a deadline
            "InteractiveShellApp": {"exec_PYTHONSTARTUP": False},
        }
    )


def apply(handover: dict[str, Any]) -> None:
    """Take on what the session decides: environment, folder and limit of memory."""
    os.environ.update(handover["env"])
    os.chdir(handover["workspace"])
    limit = handover["memory_limit_bytes"]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit - handover["memory_reserve_bytes"], limit))


def survive_memory_errors(shell: Any) -> None:
    """Take the reserve of memory before a MemoryError is told of: ZeroMQ ends the process when it gets no memory."""
    show = shell.showtraceback

    def showtraceback(*args: Any, **kwargs: Any) -> None:
        if isinstance(sys.exc_info()[1], MemoryError):
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        show(*args, **kwargs)

    shell.showtraceback = showtraceback


def start(handover: dict[str, Any], packing: Any, support: Any, streams: Any) -> CarrelKernelApp:
    """Return the application with listening sockets."""
    apply(handover)
    config = configuration(handover["connection_file"], f"{streams.__name__}.OrderedStream")
    app = CarrelKernelApp.instance(config=config, kernel_class=IPythonKernel)
    app.initialize([])
    app.session.pack = packing.pack
    support.install(app.shell)
    survive_memory_errors(app.shell)
    return app


def main() -> None:
    """Be a spare, then a kernel."""
    inherit_nothing()
    die_with(int(sys.argv[1]))
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from carrel_kernel.inside import packing, streams, support  # noqa: PLC0415  only now, and for this line alone, are they found

    del sys.path[0]
    host = os.dup(sys.stdout.fileno())
    errors = os.dup(sys.stderr.fileno())
    os.write(host, b"spare\n")
    line = sys.stdin.buffer.readline()
    if not line:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # user code has no way to the host's own streams
        os.dup2(null, descriptor)
    os.close(null)
    sys.argv[:] = ["kernel"]
    try:
        app = start(json.loads(line), packing, support, streams)
    except Exception:  # noqa: BLE001  the edge of a process: whatever it is, the host's log must have it
        os.write(errors, traceback.format_exc().encode("utf-8", "replace"))
        sys.exit(1)
    os.write(host, b"ready\n")
    os.close(host)
    os.close(errors)
    app.start()


if __name__ == "__main__":
    main()
