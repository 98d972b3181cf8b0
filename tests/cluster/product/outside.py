"""A world outside the cluster, made of one network namespace: addresses that pods must not reach.

The device's name begins with `hc`, so the bare cluster lets pods route to it: what is closed is closed by policy alone.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Generator
from typing import Final

NAMESPACE: Final = "carrel-outside"
DEVICE: Final = "hc-outside"
HOST: Final = "198.51.100.1"
PUBLIC: Final = "198.51.100.10"
"""From the block that is reserved for documentation."""
METADATA: Final = "169.254.169.254"
PORT: Final = 80

SERVER: Final = f"""
import socketserver
class Greet(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b"hello")
class Server(socketserver.ThreadingTCPServer): allow_reuse_address = True
server = Server(("0.0.0.0", {PORT}), Greet)
print("listening", flush=True)
server.serve_forever()
"""


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check, timeout=20)


class Outside:
    """See the module."""

    public = PUBLIC
    metadata = METADATA
    port = PORT

    @classmethod
    @contextlib.contextmanager
    def made(cls) -> Generator[Outside]:
        """Make it, with a server on both addresses; remove it afterwards."""
        cls._remove()
        inside = ("-n", NAMESPACE)
        _ip("netns", "add", NAMESPACE)
        try:
            _ip("link", "add", DEVICE, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
            _ip("addr", "add", f"{HOST}/24", "dev", DEVICE)
            _ip("link", "set", DEVICE, "up")
            for device in ("lo", "eth0"):
                _ip(*inside, "link", "set", device, "up")
            _ip(*inside, "addr", "add", f"{PUBLIC}/24", "dev", "eth0")
            _ip(*inside, "addr", "add", f"{METADATA}/32", "dev", "eth0")
            _ip(*inside, "route", "add", "default", "via", HOST)
            _ip("route", "add", METADATA, "via", PUBLIC)
            command = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", SERVER]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    assert server.stdout is not None
                    assert server.stdout.readline().strip() == "listening"
                    yield cls()
                finally:
                    server.terminate()
        finally:
            cls._remove()

    @staticmethod
    def _remove() -> None:
        _ip("route", "delete", METADATA, check=False)
        _ip("link", "delete", DEVICE, check=False)
        _ip("netns", "delete", NAMESPACE, check=False)
