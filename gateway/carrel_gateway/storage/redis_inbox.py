"""What this process hears from others over Redis: one stream, its inbox, read by one connection for all channels.

The entries of an inbox are numbered without gaps. After a short cut the reading goes on behind the last number, and
nothing is lost; what is missing all the same, because Redis holds only so many entries, is seen by the numbers. After
a longer cut, or when the server is another one, the inbox begins anew and every reader is told that it has lost
something.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any, Final, TypeVar, cast
from uuid import uuid4

import structlog
from redis.asyncio import Redis

from carrel_gateway.storage.bus import Readers
from carrel_gateway.storage.metrics import HEALTHY, RECONNECTS
from carrel_gateway.storage.redis_clients import FAILURES
from carrel_gateway.storage.redis_outbox import PREFIX, REGISTRATION_SECONDS, Outbox

INBOX_SECONDS: Final = 60
"""An inbox that nobody asks for lives so long."""
BLOCK_SECONDS: Final = 1.0
"""A read without news returns after this time, as a sign of life."""
RESUME_SECONDS: Final = 3.0
"""A longer silence than that is told to the readers, who look into the log by themselves then."""
SILENCE_SECONDS: Final = BLOCK_SECONDS + RESUME_SECONDS + 2.0
"""After that the connection is given up: a server without power, or a network that drops everything, closes none."""
_COUNT: Final = 500
_BEAT_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
_MAX_ORIGINS: Final = 1000

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class _Lost(Exception):
    """The inbox cannot be read on."""


class Inbox:
    """The inbox of one process, and the task that reads it."""

    def __init__(self, client: Redis, readers: Readers, outbox: Outbox) -> None:
        self._client = client
        self._readers = readers
        self._outbox = outbox
        self._number = 0
        self._server: str | None = None
        self._told = True
        """Whether the readers know that there is nothing more to be heard of this inbox."""
        self._timer: asyncio.TimerHandle | None = None
        self._beat_at = 0.0
        self._registered_at = 0.0
        self._last_of: OrderedDict[str, int] = OrderedDict()
        self.hears = False
        """Whether news of others get here."""

    async def run(self) -> None:
        """Read for ever."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._open()
                while True:
                    await self._read()
                    pause = _FIRST_PAUSE_SECONDS
            except (*FAILURES, _Lost) as error:
                _log.warning("bus_cut", error=type(error).__name__)
            self._set_hearing(False)
            if not self._told and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(RESUME_SECONDS, self._tell)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def remove(self) -> None:
        """Delete the inbox: nobody will read it any more."""
        if self._outbox.own:
            await self._client.delete(self._outbox.own)

    def stop(self) -> None:
        """Forget what was to be told."""
        self._set_timer(None)
        self._set_hearing(False)

    # opening

    async def _open(self) -> None:
        server = (await self._client.info("server")).get("run_id")
        resumed = not self._told and server == self._server and await self._is_whole()
        if not resumed or self._told:  # by now
            await self._begin()
        self._set_timer(None)
        if self._server is not None:
            RECONNECTS.labels("resumed" if resumed else "anew").inc()
        self._server = server
        self._set_hearing(True)
        if not resumed:
            self._readers.lose_all("cut")
        _log.info("bus_stands", resumed=resumed)

    async def _is_whole(self) -> bool:
        """Return whether the inbox is there, with everything that was read before."""
        name = self._outbox.own
        if not await self._client.expire(name, INBOX_SECONDS):
            return False
        last = cast("list[tuple[bytes, Any]]", await self._client.xrevrange(name, count=1))
        return bool(last) and _number_of(last[0][0]) >= self._number

    async def _begin(self) -> None:
        """Make a new inbox, and have everything that is read here sent to it."""
        old, name = self._outbox.own, f"{PREFIX}inbox:{uuid4().hex}"
        pipeline = self._client.pipeline(transaction=False)
        if old:
            pipeline.delete(old)
        pipeline.xadd(name, {"kind": "first"}, id="0-1")
        pipeline.expire(name, INBOX_SECONDS)
        await pipeline.execute()
        self._outbox.own = name
        self._outbox.registered.clear()
        self._number = 1
        self._last_of.clear()
        await self._register()
        self._told = False
        self._outbox.wake()

    async def _register(self) -> None:
        await self._outbox.register(self._client, self._readers.channels())
        self._registered_at = asyncio.get_running_loop().time()

    # reading

    async def _read(self) -> None:
        name = self._outbox.own
        read = self._client.xread({name: f"0-{self._number}"}, count=_COUNT, block=int(BLOCK_SECONDS * 1000))
        reply = cast(
            "list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", await self._watched(read, BLOCK_SECONDS)
        )
        for _, entries in reply:
            for entry_id, fields in entries:
                self._take(_number_of(entry_id), fields)
        now = asyncio.get_running_loop().time()
        if now - self._beat_at >= _BEAT_SECONDS:
            self._beat_at = now
            await self._watched(self._beat(), 0)

    async def _watched(self, answer: Awaitable[_T], seconds: float) -> _T:
        """Return the answer; readers are told in the meantime when it takes too long, and then it is of no use."""
        timer = asyncio.get_running_loop().call_later(seconds + RESUME_SECONDS, self._tell)
        try:
            given = await answer
        finally:
            timer.cancel()
        if self._told:
            raise _Lost
        return given

    async def _beat(self) -> None:
        """Keep the inbox, without what has been read, and now and then register again what is read here."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.expire(self._outbox.own, INBOX_SECONDS)
        pipeline.xtrim(self._outbox.own, minid=f"0-{self._number}", approximate=True)
        if not (await pipeline.execute())[0]:
            self._tell()
            return
        if asyncio.get_running_loop().time() - self._registered_at > REGISTRATION_SECONDS / 4:
            await self._register()

    def _take(self, number: int, fields: dict[bytes, bytes]) -> None:
        if number != self._number + 1:
            self._readers.lose_all("gap")
        self._number = number
        channel = fields[b"channel"].decode()
        if not self._readers.has(channel):
            self._outbox.change(channel)
        elif fields[b"kind"] == b"lost":
            self._readers.lose(channel, "unsent")
        elif not self._is_repeated(fields[b"mark"].decode()):
            self._readers.deliver(channel, fields[b"data"], "redis")

    def _is_repeated(self, mark: str) -> bool:
        """Return whether the news came before: a sender that does not know whether they arrived sends them again."""
        origin, _, number = mark.partition(":")
        repeated = int(number) <= self._last_of.get(origin, 0)
        if not repeated:
            self._last_of[origin] = int(number)
            self._last_of.move_to_end(origin)
            if len(self._last_of) > _MAX_ORIGINS:
                self._last_of.popitem(last=False)
        return repeated

    # telling

    def _tell(self) -> None:
        """Tell all readers that news may be missing; whatever comes out of this inbox later is too late."""
        self._set_timer(None)
        self._set_hearing(False)
        self._told = True
        self._readers.lose_all("cut")

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _set_hearing(self, hears: bool) -> None:
        self.hears = hears
        HEALTHY.set(hears)


def _number_of(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[2])
