"""Bytes to a server and back, as no client library would send them."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(url: str) -> socket.socket:
    """Return a connection to the server under the address."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), SECONDS)


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the server hangs up."""
    received = bytearray()
    with suppress(ConnectionResetError):  # it hung up before it had read all of what was sent
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)


def answers(received: bytes) -> list[Answer]:
    """Return the responses that are in what came; interim ones are left out."""
    found: list[Answer] = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        if status == 100:
            received = rest
            continue
        if headers.get("transfer-encoding") == "chunked":
            body, received = _chunks(rest)
        else:
            length = int(headers.get("content-length", "0"))
            body, received = rest[:length], rest[length:]
        found.append(Answer(status, headers, body))
    return found


def exchange(url: str, request: bytes) -> list[Answer]:
    """Send the bytes, no more, and return all responses until the server hangs up."""
    with connect(url) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has answered and hung up meanwhile
            connection.sendall(request)
        return answers(everything(connection))


def _chunks(received: bytes) -> tuple[bytes, bytes]:
    body = bytearray()
    while True:
        size, _, received = received.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return bytes(body), received.removeprefix(b"\r\n")
        body += received[:length]
        received = received[length + 2 :]
