"""A process that has imported the gateway once, and is forked into each one that tests start; run as a script.

Standard input is a socket to the tests. Each message there brings the arguments, the whole environment and the folder
of a gateway, with the descriptors of its standard streams and of a pipe; the answer is its process id, and its exit
code comes through the pipe. From then on it is `python -m carrel_gateway` in all but how it got its modules. What a
module reads when it is imported, and threads, would make it another thing: the first are in `OWN` alone, and it does
not fork when it has any of the second.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from pathlib import Path

OWN = ("CARREL_", "LLM_", "DSAGENT_", "OPENAI_", "ANTHROPIC_", "REDIS_")
"""Variables that the gateway reads when it starts, and nothing reads when it is imported."""
MESSAGE_BYTES = 128 * 1024


def serve(tests: socket.socket) -> list[str]:
    """Fork until the tests have ended; in a new process return the arguments."""
    ends: dict[int, tuple[int, int]] = {}  # descriptor of a process → its id, and the pipe for its exit code
    while True:
        for ready in select.select([tests, *ends], [], [])[0]:
            if ready is not tests:
                pid, pipe = ends.pop(ready)
                os.write(pipe, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                os.close(pipe)
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(tests, MESSAGE_BYTES, 4)
            if not message:
                os._exit(0)
            assert len(list(Path("/proc/self/task").iterdir())) == 1
            pid = os.fork()
            if pid == 0:
                return become(json.loads(message), descriptors)
            ends[os.pidfd_open(pid)] = pid, descriptors.pop()
            for descriptor in descriptors:
                os.close(descriptor)
            tests.send(str(pid).encode())


def become(wanted: dict, descriptors: list[int]) -> list[str]:
    """Make this process one that has just been started; return its arguments."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)  # the first of them was the socket to the tests
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(wanted["environment"])
    time.tzset()
    os.chdir(wanted["folder"])
    sys.argv[1:] = wanted["arguments"]
    return wanted["arguments"]


def main() -> int:
    """Be ready, and then a gateway."""
    from carrel_wire.quick_start import importing

    with importing():
        import alembic.command  # noqa: F401  a new database needs it
        import uvicorn.lifespan.on
        import uvicorn.protocols.websockets.websockets_sansio_impl  # noqa: F401  what uvicorn imports when it starts

        import carrel_gateway.serving  # noqa: F401
        from carrel_gateway.__main__ import main as be_gateway
    tests = socket.socket(fileno=0)
    arguments = serve(tests)
    tests.detach()
    return be_gateway(arguments)


if __name__ == "__main__":
    sys.exit(main())
