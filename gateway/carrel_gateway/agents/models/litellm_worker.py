"""The worker process in which litellm runs: `python -m carrel_gateway.agents.models.litellm_worker`.

The only importer of litellm. Reads requests as JSON lines from standard input (`id`, `model`, `messages`, `max_tokens`,
`api_key`, `api_base`, `stream`; or `id`, `cancel`) and writes replies as JSON lines to standard output: `id` with
`text` for a part of the reply, with `usage` at the end, or with `error` (a kind) and `message`. Ends when its input
ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from typing import Any, Final

import msgspec
import stamina

from carrel_gateway.hardening import forbid_memory_access

_TOGETHER_SECONDS: Final = 0.03
"""Parts of a reply that come within this time are sent as one."""
_ATTEMPTS: Final = 3
_MESSAGE_CHARACTERS: Final = 300
_KEY_LIKE: Final = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][\w*.-]{6,}")


class _Broken(Exception):
    """The stream ended before the reply did."""


class Worker:
    """Serves the requests of one gateway."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, requests: asyncio.StreamReader) -> None:
        """Serve until the input ends."""
        while line := await requests.readline():
            request = msgspec.json.decode(line, type=dict[str, Any])
            number = int(request["id"])
            task = self._tasks.get(number)
            if request.get("cancel"):
                if task:
                    task.cancel()
                continue
            task = asyncio.create_task(self._serve_one(number, request))
            self._tasks[number] = task
            task.add_done_callback(lambda _, number=number: self._tasks.pop(number, None))

    async def _serve_one(self, number: int, request: dict[str, Any]) -> None:
        try:
            await self._complete(number, request)
        except Exception as error:  # noqa: BLE001 (every failure of a provider's library is an answer to this request)
            self._write({"id": number, "error": kind_of(error), "message": brief(error, request.get("api_key"))})

    async def _complete(self, number: int, request: dict[str, Any]) -> None:
        stream = await self._opened(request)
        if not request.get("stream", True):
            self._write_whole(number, str(request["model"]), stream)
            return
        texts: list[str] = []
        sent, finish, counts = time.monotonic(), None, None
        async for chunk in stream:
            counts = getattr(chunk, "usage", None) or counts
            for choice in chunk.choices[:1]:
                finish = choice.finish_reason or finish
                if choice.delta and choice.delta.content:
                    texts.append(str(choice.delta.content))
            if texts and time.monotonic() - sent >= _TOGETHER_SECONDS:
                self._write({"id": number, "text": "".join(texts)})
                texts, sent = [], time.monotonic()
        if texts:
            self._write({"id": number, "text": "".join(texts)})
        if finish is None:
            raise _Broken("the reply broke off")
        self._write({"id": number, "usage": usage_of(str(request["model"]), counts, str(finish))})

    def _write_whole(self, number: int, model: str, reply: Any) -> None:
        if not reply.choices:
            raise _Broken("the reply is empty")
        choice = reply.choices[0]
        if choice.message.content:
            self._write({"id": number, "text": str(choice.message.content)})
        usage = usage_of(model, getattr(reply, "usage", None), str(choice.finish_reason or "stop"))
        self._write({"id": number, "usage": usage})

    async def _opened(self, request: dict[str, Any]) -> Any:
        """Return the opened stream, or the whole reply where it is not to come in parts.

        What may pass by is tried again, before any of the reply was seen.
        """
        import litellm  # noqa: PLC0415 (takes seconds and much memory; the process answers cancels without it)

        litellm.suppress_debug_info = True
        litellm.drop_params = True
        passing = (
            litellm.exceptions.RateLimitError,
            litellm.exceptions.InternalServerError,
            litellm.exceptions.ServiceUnavailableError,
            litellm.exceptions.APIConnectionError,
        )
        base = request.get("api_base")
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if request.get("stream", True) else {}
        async for attempt in stamina.retry_context(on=passing, attempts=_ATTEMPTS, timeout=20, wait_initial=0.3):
            with attempt:
                return await litellm.acompletion(
                    model=request["model"],
                    messages=request["messages"],
                    max_tokens=request.get("max_tokens"),
                    api_key=request.get("api_key") or ("none" if base else None),
                    api_base=base,
                    **streamed,
                    max_retries=0,
                    num_retries=0,
                )
        raise _Broken("no attempt was made")

    def _write(self, document: dict[str, Any]) -> None:
        """Write one line; a pipe whose reader lags holds this process back, not the gateway."""
        data = msgspec.json.encode(document) + b"\n"
        while data:
            data = data[os.write(self._output, data) :]


def usage_of(model: str, counts: Any, finish: str) -> dict[str, Any]:
    """Return what the call took, with its price where it is known."""
    import litellm  # noqa: PLC0415 (as above)

    incoming = getattr(counts, "prompt_tokens", None)
    outgoing = getattr(counts, "completion_tokens", None)
    cost: float | None = None
    if incoming is not None and outgoing is not None:
        try:
            parts = litellm.cost_per_token(model=model, prompt_tokens=incoming, completion_tokens=outgoing)
            cost = float(sum(parts)) or None  # a price of nothing is a price that is not known
        except Exception:  # noqa: BLE001 (litellm raises plain exceptions for models without a price)
            cost = None
    return {"input_tokens": incoming, "output_tokens": outgoing, "cost": cost, "finish_reason": finish}


def kind_of(error: Exception) -> str:
    """Return the kind of a failure, by the names of litellm's exceptions."""
    names = [one.__name__ for one in type(error).__mro__]
    if "LLM Provider NOT provided" in str(error):
        return "model"
    if "Connection error" in str(error):  # litellm calls it an internal error of the provider
        return "connection"
    kinds = (
        ("ContextWindowExceededError", "length"),
        ("AuthenticationError", "key"),
        ("PermissionDeniedError", "key"),
        ("PaymentRequiredError", "quota"),
        ("RateLimitError", "rate"),
        ("NotFoundError", "model"),
        ("BadRequestError", "request"),
        ("_Broken", "connection"),
        ("MidStreamFallbackError", "connection"),
        ("Timeout", "connection"),
        ("APIConnectionError", "connection"),
        ("InternalServerError", "provider"),
        ("ServiceUnavailableError", "provider"),
        ("BadGatewayError", "provider"),
        ("APIError", "provider"),
    )
    return next((kind for name, kind in kinds if name in names), "other")


def brief(error: Exception, key: str | None) -> str:
    """Return the failure in one short line without keys."""
    text = " ".join(str(error).split())
    if key:
        text = text.replace(key, "[key]")
    return _KEY_LIKE.sub("[key]", text)[:_MESSAGE_CHARACTERS]


async def main() -> None:
    """Serve standard input until it ends; what libraries print goes nowhere."""
    forbid_memory_access()
    output = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    requests = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    await Worker(output).serve(requests)


if __name__ == "__main__":
    asyncio.run(main())
