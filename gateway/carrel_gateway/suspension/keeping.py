"""Saves sessions when the platform asks for it: every gateway hears of every request, and one of them answers it.

What cannot be saved now is tried again later and later, with the reason written where people look; a request that is
withdrawn is dropped. How a session is saved is `requested`'s.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Final

import structlog

from carrel_gateway.context import ProcessContext
from carrel_gateway.errors import CarrelError, Conflict, Unavailable
from carrel_gateway.executors.base import Listed, Sighting, SuspensionRequest, SuspensionRequests
from carrel_gateway.suspension import metrics
from carrel_gateway.suspension.requested import answer

AT_ONCE: Final = 4
"""A snapshot is streamed through, so it costs little memory; kernel hosts and the store have other work, too."""
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 60.0
SILENCE_SECONDS: Final = 30.0
"""Without a working watch for so long, the gateway says that it is degraded."""
_WATCH_PAUSE_SECONDS: Final = 0.2
_LONGEST_WATCH_PAUSE_SECONDS: Final = 15.0

_log = structlog.get_logger(__name__)


class SessionKeeper:
    """The requests that this process knows of, each with a task of its own."""

    def __init__(self, context: ProcessContext, requests: SuspensionRequests) -> None:
        self._context = context
        self._requests = requests
        self._wanted: dict[str, SuspensionRequest] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._blind_since: float | None = time.monotonic()  # until the first list is there

    async def run(self) -> None:
        """Follow the requests and answer them, until cancelled."""
        pause = _WATCH_PAUSE_SECONDS
        try:
            while True:
                try:
                    await self._follow()
                    pause = _WATCH_PAUSE_SECONDS
                except CarrelError as error:
                    self._blind()
                    _log.warning("suspension_requests_not_seen", code=error.code, error=error.message)
                except Exception:  # noqa: BLE001 - the next look must come
                    self._blind()
                    _log.exception("suspension_requests_not_seen")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_WATCH_PAUSE_SECONDS)
        finally:
            await self._stop()

    async def ping(self) -> None:
        """Check that requests are seen.

        Raises
        ------
        Unavailable
            They have not been for half a minute.
        """
        if self._blind_since is not None and time.monotonic() - self._blind_since > SILENCE_SECONDS:
            raise Unavailable(
                "the cluster's requests to save idle sessions cannot be seen; their pods stay until they can"
            )

    # ------------------------------------------------------------------ what is wanted

    async def _follow(self) -> None:
        async with aclosing(self._requests.follow()) as sightings:
            async for seen in sightings:
                if isinstance(seen, Listed):
                    for name in self._wanted.keys() - seen.names:
                        self._drop(name)
                    self._blind_since = None
                    metrics.WATCH.set(1)
                else:
                    self._take(seen)

    def _blind(self) -> None:
        if self._blind_since is None:
            self._blind_since = time.monotonic()
        metrics.WATCH.set(0)

    def _take(self, seen: Sighting) -> None:
        if seen.request is None:
            self._drop(seen.name)
            if seen.explained:
                task = asyncio.create_task(self._explain(seen.name, None), name=f"unexplain-{seen.name}")
                self._others.add(task)
                task.add_done_callback(self._others.discard)
            return
        if self._wanted.get(seen.name) == seen.request:
            return
        self._wanted[seen.name] = seen.request
        metrics.REQUESTS.set(len(self._wanted))
        if seen.name in self._tasks:
            self._changed[seen.name].set()
            return
        self._changed[seen.name] = asyncio.Event()
        self._tasks[seen.name] = asyncio.create_task(self._keep(seen.name), name=f"keep-{seen.name}")

    def _drop(self, name: str) -> None:
        if self._wanted.pop(name, None):
            metrics.REQUESTS.set(len(self._wanted))
            self._changed[name].set()

    # ------------------------------------------------------------------ one session

    async def _keep(self, name: str) -> None:
        """Answer what is wanted of a session, again and again until it is answered or not wanted any more."""
        pause, explained = FIRST_PAUSE_SECONDS, ""
        try:
            while request := self._wanted.get(name):
                changed = self._changed[name]
                changed.clear()
                async with self._at_once:
                    problem = await self._attempt(request)
                if problem is None:
                    if self._wanted.get(name) == request:
                        self._drop(name)
                    continue
                if problem != explained and self._wanted.get(name) == request:
                    explained = problem
                    await self._explain(name, problem)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await changed.wait()
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        finally:
            del self._tasks[name], self._changed[name]

    async def _attempt(self, request: SuspensionRequest) -> str | None:
        """Answer a request once; returns what stands in the way, in words, or none."""

        def wanted() -> bool:
            return self._wanted.get(request.name) == request

        began = time.perf_counter()
        log = _log.bind(session=str(request.session_id), name=request.name, reason=request.reason)
        try:
            if not wanted():
                outcome, problem = "withdrawn", None
            else:
                outcome, problem = await answer(self._context, request, wanted), None
        except Conflict as error:
            outcome, problem = "in_use", f"{error.message.rstrip('.')}. Nothing is lost, and it is tried again."
        except CarrelError as error:
            said = error.message.rstrip(".")
            outcome, problem = "failed", f"{said}. Nothing is lost, the pod stays, and it is tried again."
            log.warning("session_not_saved", code=error.code, error=error.message)
        except Exception:  # of one session; the others must go on
            outcome, problem = "failed", "The gateway could not save the session; its log says why. It is tried again."
            log.exception("session_not_saved")
        metrics.ATTEMPTS.labels(request.reason.lower(), outcome).inc()
        if outcome == "suspended":
            metrics.SECONDS.observe(time.perf_counter() - began)
        if outcome not in ("in_use", "failed", "elsewhere"):
            log.info("suspension_answered", outcome=outcome)
        # What another gateway is at is looked at again: it may die. Its explanation is its own.
        return "" if outcome == "elsewhere" else problem

    async def _explain(self, name: str, text: str | None) -> None:
        if text == "":
            return
        try:
            await self._requests.explain(name, text)
        except CarrelError as error:
            _log.warning("explanation_not_written", name=name, code=error.code)

    async def _stop(self) -> None:
        metrics.WATCH.set(0)
        tasks = [*self._tasks.values(), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
