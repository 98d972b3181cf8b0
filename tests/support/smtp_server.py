"""A small server of mail on loopback (RFC 5321, what clients use of it): keeps what it gets, and fails when told to."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class SmtpServer:
    """One server."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    credentials: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Answers to give to the next recipients instead of accepting them; `cut` cuts the connection."""

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                writer.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif verb == "AUTH":
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                self.credentials.append((user, password))
                writer.write(b"235 good\r\n")
            elif verb == "RCPT" and self.failures:
                failure = self.failures.pop(0)
                if failure == "cut":
                    return
                writer.write(f"{failure}\r\n".encode())
            elif verb == "RCPT":
                self.recipients.append(line.partition("<")[2].partition(">")[0])
                writer.write(b"250 good\r\n")
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                raw = (await reader.readuntil(b"\r\n.\r\n")).removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
                self.messages.append(message_from_bytes(raw, policy=policy.default))
                writer.write(b"250 kept\r\n")
            elif verb == "QUIT":
                writer.write(b"221 good-bye\r\n")
                return
            else:
                writer.write(b"250 good\r\n")
            await writer.drain()


@asynccontextmanager
async def smtp_server() -> AsyncIterator[SmtpServer]:
    """Run one on a free port."""
    server = SmtpServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
