"""An OpenAI-compatible server on loopback whose behaviour is written beforehand; for everything over HTTP.

Each request to `/v1/chat/completions` takes the next behaviour: a reply (streamed in chunks of changing length, since
litellm gives up a stream whose chunks repeat), a status with an error body, silence, or a stream that breaks off.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Reply:
    """Text, streamed; `cut_after` breaks the connection after so many characters, `finish` ends it orderly."""

    text: str
    cut_after: int | None = None
    finish: str | None = "stop"


@dataclass(frozen=True)
class Failure:
    """A status with an error body as OpenAI writes it."""

    status: int
    message: str = "no"
    code: str | None = None


class Silence:
    """Accepts the request and says nothing."""


Behaviour = Reply | Failure | Silence


@dataclass
class FakeOpenAI:
    """The server, and the requests that it got."""

    behaviours: list[Behaviour]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a caller went away before its reply was over."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization", ""))
        self.asked.set()
        if not self.behaviours:
            return _failure(Failure(500, "the script is exhausted"))
        behaviour = self.behaviours.pop(0)
        try:
            if isinstance(behaviour, Failure):
                return _failure(behaviour)
            if isinstance(behaviour, Silence):
                await asyncio.Event().wait()
            assert isinstance(behaviour, Reply)
            if not self.requests[-1].get("stream"):
                return _whole(behaviour)
            return await self._stream(request, behaviour)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.set()
            raise

    async def _stream(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        at, length = 0, 3
        while at < len(reply.text):
            if reply.cut_after is not None and at >= reply.cut_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            await _send(response, {"content": reply.text[at : at + length]})
            at, length = at + length, length % 11 + 1
        if reply.finish:
            await _send(response, {}, finish=reply.finish)
            usage = {"prompt_tokens": 7, "completion_tokens": len(reply.text), "total_tokens": 7 + len(reply.text)}
            await _send(response, None, usage=usage)
            await response.write(b"data: [DONE]\n\n")
        return response


def _whole(reply: Reply) -> web.Response:
    message = {"role": "assistant", "content": reply.text}
    length = len(reply.text)
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": length, "total_tokens": 7 + length},
    }
    return web.json_response(body)


@asynccontextmanager
async def fake_openai(behaviours: Sequence[Behaviour]) -> AsyncIterator[FakeOpenAI]:
    """Serve on a free port of loopback."""
    fake = FakeOpenAI(list(behaviours))
    application = web.Application()
    application.router.add_post("/v1/chat/completions", fake.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}/v1"
    try:
        yield fake
    finally:
        await runner.cleanup()


async def _send(
    response: web.StreamResponse,
    delta: dict[str, Any] | None,
    *,
    finish: str | None = None,
    usage: dict[str, int] | None = None,
) -> None:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": choices,
        "usage": usage,
    }
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _failure(failure: Failure) -> web.Response:
    body = {"error": {"message": failure.message, "type": "error", "code": failure.code, "param": None}}
    return web.json_response(body, status=failure.status)
