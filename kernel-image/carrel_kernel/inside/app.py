"""IPython's kernel application as Carrel runs it: from the host's first line to the end of the process.

The host speaks first: where the kernel listens. `listening` answers when its sockets do; the process is then a spare.
The handover says what the session decides and is answered by `ready`; afterwards the way to the host is closed, and
the process is a plain IPython kernel. It decides nothing by itself. Source of the lines: `carrel_kernel.process`.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import zmq
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.session import Session
from traitlets.config import Config

from carrel_kernel.inside import code_check, relay, shortage, streams, support, system, threads
from carrel_kernel.inside.kernel import CarrelKernel
from carrel_kernel.inside.session import KernelSession

_OPEN_SECONDS: Final = 10.0
_IOPUB_QUEUE: Final = 256
"""Messages that wait for the host. When they are full, printing waits: nothing is lost and memory is bounded."""
_IOPUB_OPTIONS: Final[dict[int, int]] = {
    zmq.LINGER: 1000,
    zmq.SNDHWM: _IOPUB_QUEUE,
    zmq.XPUB_NODROP: 1,
    zmq.XPUB_VERBOSE: 1,
}


class CarrelKernelApp(IPKernelApp):
    """IPython's kernel application, with an output socket that drops nothing and welcomes every subscriber.

    Without `XPUB_VERBOSE` it learns of the first one only, and later ones do not know from when on they miss nothing.
    """

    def _session_default(self) -> Session:
        return KernelSession(parent=self)

    def init_control(self, context: zmq.Context[Any]) -> None:
        """Make the control channel and the threads of both, that of the shell's with quicker ways to the main one."""
        super().init_control(context)
        self.shell_channel_thread.io_loop.close()  # of a thread that has not been started
        self.shell_channel_thread = relay.ShellThread(context, daemon=True)

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """Make the output socket, whose options must be set before it is bound, and its thread."""
        socket: Any = context.socket(zmq.XPUB)
        for option, value in _IOPUB_OPTIONS.items():
            socket.setsockopt(option, value)
        self.iopub_port = self._bind_socket(socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = streams.OutputThread(socket, pipe=True, session=self.session)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket


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
            "HistoryManager": {"hist_file": ":memory:"},  # the gateway keeps what must last; a file would be locked
            "IPCompleter": {"use_jedi": False},  # it can take seconds, and completion has a deadline
            "InteractiveShellApp": {"exec_PYTHONSTARTUP": False},
        }
    )


def open_pipes(output: Any) -> None:
    """Open what this thread needs to write: later, the process may have no file to open left."""
    opened = threading.Event()
    output.schedule(opened.set)
    opened.wait(_OPEN_SECONDS)


def keep_no_copies(shell: Any) -> None:
    """Keep no copy of what is printed, which `%notebook` alone would read: it takes longer than to print, and stays."""

    def no_tee(channel: str) -> AbstractContextManager[None]:  # noqa: ARG001  IPython names it
        return nullcontext()

    shell._tee = no_tee  # noqa: SLF001  IPython has no setting for it


def listen(connection_file: str) -> CarrelKernelApp:
    """Return the application with listening sockets, and its first cell's imports done."""
    config = configuration(connection_file, f"{streams.__name__}.OrderedStream")
    app = CarrelKernelApp.instance(config=config, kernel_class=CarrelKernel)
    app.initialize([])
    app.log.setLevel(app.log_level)  # traitlets sets its handlers' level only: each message is made, and dropped
    shell: Any = app.shell
    support.install(shell)
    shortage.tell_of_errors(shell)
    keep_no_copies(shell)
    open_pipes(app.iopub_thread)
    shell.run_cell("None", silent=True, store_history=False)
    return app


def apply(handover: dict[str, Any], shell: Any) -> None:
    """Take on what the session decides: environment, folder, threads, limits, and what cells may import."""
    env: dict[str, str] = handover["env"]
    os.environ.update(env)
    if "TZ" in env:
        time.tzset()
    if "MPLBACKEND" in env and "matplotlib" in sys.modules:  # it has read its variable already
        sys.modules["matplotlib"].rcParams["backend"] = env["MPLBACKEND"]
    os.chdir(handover["workspace"])
    if packages := env.get("PIP_TARGET"):
        Path(packages).mkdir(exist_ok=True)  # Python forgets a folder of its path that is not there
        sys.path.append(packages)
    threads.use(handover["threads"])
    system.be_killed_first()
    limits: dict[str, int] = handover["limits"]
    shortage.limit_files(limits["open_files"])
    system.lower_limit(resource.RLIMIT_NPROC, limits["processes"])
    system.lower_limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    limit = handover["memory_limit_bytes"]
    if limit is not None:
        limit += system.untouched_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (limit - handover["memory_reserve_bytes"], limit))
    if allowed := handover["allowed_imports"]:
        code_check.enforce(shell, allowed)


def run(host: socket.socket, host_pid: int) -> None:
    """Be a spare, then a kernel, and return at its end; at once when the host has no use for it.

    Parameters
    ----------
    host
        Stream to the host. No other descriptor of the process is left open but the standard error output, which is the
        host's log until the handover is done.
    host_pid
        The host, with which this process ends.
    """
    lines = host.makefile("rb")
    first = lines.readline()
    system.die_with(host_pid)  # only now: before, a forked process is not yet the host's child
    if not first:
        return
    null, errors = os.open(os.devnull, os.O_RDWR), os.dup(2)
    for descriptor in (0, 1, 2):  # user code has no way to the host's own streams
        os.dup2(null, descriptor)
    os.close(null)
    sys.argv[:] = ["kernel"]
    try:
        app = listen(json.loads(first)["connection_file"])
        host.sendall(b"listening\n")
        second = lines.readline()
        if not second:
            return
        apply(json.loads(second), app.shell)
        host.sendall(b"ready\n")
    except BrokenPipeError:
        return  # the host has ended
    except Exception:  # noqa: BLE001  the edge of a process: whatever it is, the host's log must have it
        os.write(errors, traceback.format_exc().encode("utf-8", "replace"))
        sys.exit(1)
    lines.close()
    host.close()
    os.close(errors)
    app.start()
