"""The client of language models: `ModelClient` over a worker process in which litellm runs.

litellm stays out of this process: it takes long to import and much memory, and provider keys in the environment are
needed by the worker alone. Requests and replies are JSON lines over pipes (`litellm_worker`). The worker starts with
the first call; when it dies, the calls it served fail with `ModelFailed`, and the next call starts a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

import msgspec
import structlog

from carrel_gateway.agents.models.providers import key_names
from carrel_gateway.agents.prompts import messages
from carrel_gateway.agents.protocols import AgentView, ModelChunk, Usage
from carrel_gateway.errors import ModelFailed

log = structlog.get_logger(__name__)

_OWN_PREFIXES: Final = ("CARREL_", "DSAGENT_", "LLM_")
"""Variables of the gateway itself; its secrets are none of the worker's business."""
_LINE_BYTES: Final = 8 * 1024 * 1024
_END_SECONDS: Final = 5.0
_DIED: Final = "The process that speaks to model providers ended unexpectedly. Ask again; a new one is started."


class LitellmClient:
    """One language model."""

    def __init__(
        self,
        name: str,
        *,
        worker: LitellmWorker,
        api_key: str | None,
        api_base: str | None,
        max_tokens: int,
        own_key: bool = False,
        in_parts: bool = True,
    ) -> None:
        self.name = name
        self._worker = worker
        self._api_key = api_key
        self._api_base = api_base
        self._max_tokens = max_tokens
        self._own_key = own_key
        self._in_parts = in_parts

    async def stream(self, view: AgentView) -> AsyncIterator[ModelChunk]:
        """Yield the reply in parts.

        Raises
        ------
        ModelFailed
            The provider refused, failed or broke off; the message says what to do and holds no key.
        """
        request: dict[str, Any] = {
            "model": self.name,
            "messages": messages(view),
            "max_tokens": self._max_tokens,
            "api_key": self._api_key,
            "api_base": self._api_base,
            "stream": self._in_parts,
        }
        async with contextlib.aclosing(self._worker.call(request)) as replies:
            async for reply in replies:
                if "error" in reply:
                    raise ModelFailed(self._explain(str(reply["error"]), str(reply.get("message", ""))))
                usage = msgspec.convert(reply["usage"], Usage) if "usage" in reply else None
                yield ModelChunk(str(reply.get("text", "")), usage)

    def _explain(self, kind: str, message: str) -> str:
        if self._api_key:
            message = message.replace(self._api_key, "[key]")
        variables = " or ".join(["LLM_API_KEY", *key_names(self.name)])
        if self._own_key:
            variables = "the key that is stored under /api/provider-keys"
        said = {
            "key": f"The provider refused the key of model {self.name}: check {variables}.",
            "rate": f"The provider of model {self.name} limits how often it may be asked. Wait a little and ask again.",
            "quota": f"The account of model {self.name} is exhausted. Check it with the provider.",
            "model": f"The provider does not know model {self.name}: check LLM_MODEL and LLM_API_BASE.",
            "request": f"The provider of model {self.name} does not take the request: check LLM_MODEL.",
            "length": f"The conversation is too long for model {self.name}. Begin a new session.",
            "connection": f"The provider of model {self.name} cannot be reached, or broke off: check LLM_API_BASE and "
            "the network, and ask again.",
            "provider": f"The provider of model {self.name} failed. Ask again in a moment.",
        }.get(kind, f"Model {self.name} failed.")
        return f"{said} ({message})" if message else said


class LitellmWorker:
    """The worker process, shared by all language models of the gateway."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[dict[str, Any]]] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def call(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the worker's replies to a request; the last one carries usage or an error."""
        process = await self._started()
        number = next(self._numbers)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting[number] = queue
        over = False
        try:
            await _send(process, {"id": number, **request})
            while not over:
                reply = await queue.get()
                over = "usage" in reply or "error" in reply
                yield reply
        finally:
            self._waiting.pop(number, None)
            if not over and process.returncode is None:
                with contextlib.suppress(ModelFailed):
                    await _send(process, {"id": number, "cancel": True})

    async def aclose(self) -> None:
        """End the worker: it ends by itself when its input is closed."""
        process, reader = self._process, self._reader
        self._process = self._reader = None
        if process is None or reader is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await reader

    async def _started(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process and self._process.returncode is None and self._reader and not self._reader.done():
                return self._process
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "carrel_gateway.agents.models.litellm_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # libraries write there what may hold prompts
                env=worker_environment(self._environment),
                limit=_LINE_BYTES,
            )
            self._process = process
            self._reader = asyncio.create_task(self._read(process), name="litellm-replies")
            log.info("model_worker_started", pid=process.pid)
            return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand replies to whoever waits for them; at the end of the process, tell all that wait."""
        if process.stdout is None:
            return
        try:
            while line := await process.stdout.readline():
                reply = msgspec.json.decode(line, type=dict[str, Any])
                queue = self._waiting.get(int(reply["id"]))
                if queue is not None:
                    queue.put_nowait(reply)
        except (ValueError, msgspec.DecodeError):
            process.kill()  # it does not keep to the protocol
        await process.wait()
        log.info("model_worker_ended", pid=process.pid, returncode=process.returncode)
        for queue in self._waiting.values():
            queue.put_nowait({"error": "worker", "message": _DIED})


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the worker: providers' variables yes, the gateway's own no."""
    kept = {name: value for name, value in environment.items() if not name.startswith(_OWN_PREFIXES)}
    return {
        **kept,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise the import fetches a price list over the network
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
    }


async def _send(process: asyncio.subprocess.Process, document: dict[str, Any]) -> None:
    if process.stdin is None:
        raise ModelFailed(_DIED)
    try:
        process.stdin.write(msgspec.json.encode(document) + b"\n")
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ModelFailed(_DIED) from error
