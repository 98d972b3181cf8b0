"""A kernel process of its own: a fresh interpreter that imports everything itself.

Run by path as a script: `child.py HOST_PID`, with the stream to the host as standard input.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from carrel_kernel.inside import app, system

    del sys.path[0]  # for the lines above alone
    system.inherit_nothing()
    given = socket.socket(fileno=0)
    stream = given.dup()
    given.detach()  # `run` makes it the null device
    app.run(stream, int(sys.argv[1]))
