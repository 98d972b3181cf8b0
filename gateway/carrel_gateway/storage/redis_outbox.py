"""What this process says to others over Redis: a bounded queue that a background task sends in batches.

Nobody waits for Redis here. News that could not be sent in time are dropped, and when Redis answers again the readers
of their channels are told that they have lost something. Sending twice is possible, after a cut in the middle of a
batch; every piece of news has a mark by which the other side knows it again.

One script does all of it in Redis, so that a batch is one round trip. A channel has a set of the inboxes of the
processes that read it; news are appended to each of them, and to none when nobody elsewhere reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import uuid4

import structlog
from redis.asyncio import Redis

from carrel_gateway.storage.metrics import LOSSES
from carrel_gateway.storage.redis_clients import FAILURES

PREFIX: Final = "{carrel.bus}:"
"""Of every key of the bus. The braces have a Redis Cluster keep all of them in one place, as the script needs it."""
INBOX_MESSAGES: Final = 2000
"""Of one process; who was away for longer than these are enough for reads the log anyway."""
REGISTRATION_SECONDS: Final = 300
"""A process that is gone is forgotten after this time; those that are there register again long before."""
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 8 * 1024 * 1024
FRESH_SECONDS: Final = 3.0
"""News that are older than that tell nobody anything: whoever was without them has looked into the log."""
_GATHER_SECONDS: Final = 0.005
"""News wait so long for others: a cell has several, and each question to Redis costs as much as many of them."""
_BATCH: Final = 200
_BATCH_BYTES: Final = 1024 * 1024
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_LATE_SECONDS: Final = 1.0
"""A batch that is under way for so long is late."""

SCRIPT: Final = """
local own, bound, seconds, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for place = 5, #ARGV, 4 do
  local kind, channel, mark, data = ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3]
  local readers = prefix .. 'readers:' .. channel
  if kind == 'read' then
    redis.call('SADD', readers, own)
    redis.call('EXPIRE', readers, seconds)
  elseif kind == 'leave' then
    redis.call('SREM', readers, own)
  else
    for _, inbox in ipairs(redis.call('SMEMBERS', readers)) do
      if inbox ~= own and not redis.call('XADD', inbox, 'NOMKSTREAM', 'MAXLEN', '~', bound, '0-*',
          'kind', kind, 'channel', channel, 'mark', mark, 'data', data) then
        redis.call('SREM', readers, inbox)
      end
    end
  end
end
"""
"""`0-*` numbers the entries of an inbox from its beginning, without gaps: a reader sees that one is missing."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _News:
    channel: str
    data: bytes
    number: int
    at: float


@dataclass(slots=True)
class _Batch:
    changes: dict[str, list[asyncio.Future[None]]]
    reading: set[str]
    lost: set[str]
    news: list[_News]


class Interest(Protocol):
    """Who reads in this process."""

    def has(self, channel: str) -> bool:
        """Return whether somebody reads the channel."""
        ...


class Outbox:
    """The queue of one process, and the task that sends it."""

    def __init__(self, client: Redis, interest: Interest) -> None:
        self._client = client
        self._interest = interest
        self._origin = uuid4().hex
        self._number = 0
        self._news: deque[_News] = deque()
        self._bytes = 0
        self._changes: dict[str, list[asyncio.Future[None]]] = {}
        self._lost: set[str] = set()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._failing = False
        self._sending_since: float | None = None
        self.own = ""
        """Name of this process's inbox; none before there is one."""
        self.registered: set[str] = set()
        """Channels whose news come to the inbox."""

    @property
    def timely(self) -> bool:
        """Whether what is put in goes out soon."""
        since = self._sending_since
        return not self._failing and (since is None or asyncio.get_running_loop().time() - since < _LATE_SECONDS)

    def put(self, channel: str, data: bytes) -> None:
        """Send news to the readers elsewhere, sometime soon; never waits."""
        if len(self._news) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES:
            self._drop(len(self._news))
        self._number += 1
        self._news.append(_News(channel, data, self._number, asyncio.get_running_loop().time()))
        self._bytes += len(data)
        self.wake()

    def put_loss(self, channel: str) -> None:
        """Tell the readers elsewhere that they have lost something."""
        self._lost.add(channel)
        self.wake()

    def change(self, channel: str) -> asyncio.Future[None]:
        """Register the channel or leave it, as it is read by then; the future is done when Redis knows."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.registered.discard(channel)
        self._changes.setdefault(channel, []).append(done)
        self.wake()
        return done

    def wake(self) -> None:
        """Look whether there is something to send."""
        self._idle.clear()
        self._filled.set()

    async def register(self, client: Redis, channels: list[str]) -> None:
        """Have the news of the channels sent to the inbox, over another connection than the queue's."""
        for start in range(0, len(channels), _BATCH):
            part = channels[start : start + _BATCH]
            await self._evaluate(client, [word for channel in part for word in ("read", channel, "", "")])
            self.registered.update(channel for channel in part if channel not in self._changes)

    async def run(self) -> None:
        """Send for ever."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._filled.wait()
            if self._news and not self._changes and len(self._news) < _BATCH:  # nobody waits for an answer
                await asyncio.sleep(_GATHER_SECONDS)
            batch = self._next_batch()
            if batch is None:
                self._filled.clear()
                self._idle.set()
                continue
            try:
                await self._send(batch)
            except FAILURES as error:
                self._put_back(batch)
                if not self._failing:
                    _log.warning("bus_publish_failed", error=type(error).__name__)
                self._failing = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._failing = False
                pause = _FIRST_PAUSE_SECONDS

    async def flush(self, seconds: float) -> None:
        """Wait until all has been sent, but only for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def _next_batch(self) -> _Batch | None:
        """Take what is to be sent next; changes of registration wait for an inbox."""
        now = asyncio.get_running_loop().time()
        old = 0
        for news in self._news:
            if now - news.at <= FRESH_SECONDS:
                break
            old += 1
        self._drop(old)
        changes = self._changes if self.own else {}
        reading = {channel for channel in changes if self._interest.has(channel)}
        batch = _Batch(changes, reading, self._lost, [])
        self._lost = set()
        if self.own:
            self._changes = {}
        size = 0
        while self._news and len(batch.news) < _BATCH and size < _BATCH_BYTES:
            news = self._news.popleft()
            size += len(news.data)
            batch.news.append(news)
        self._bytes -= size
        return batch if batch.changes or batch.lost or batch.news else None

    async def _send(self, batch: _Batch) -> None:
        words: list[str | bytes] = []
        for channel in batch.changes:
            words += ["read" if channel in batch.reading else "leave", channel, "", ""]
        for channel in batch.lost:
            words += ["lost", channel, "", ""]
        for news in batch.news:
            words += ["news", news.channel, f"{self._origin}:{news.number}", news.data]
        self._sending_since = asyncio.get_running_loop().time()
        try:
            await self._evaluate(self._client, words)
        finally:
            self._sending_since = None
        self.registered.update(channel for channel in batch.reading if channel not in self._changes)
        for waiting in batch.changes.values():
            _finish(waiting)

    async def _evaluate(self, client: Redis, words: list[str | bytes] | list[str]) -> None:
        await client.execute_command("EVAL", SCRIPT, 0, self.own, INBOX_MESSAGES, REGISTRATION_SECONDS, PREFIX, *words)

    def _put_back(self, batch: _Batch) -> None:
        for channel, waiting in batch.changes.items():
            self._changes.setdefault(channel, []).extend(waiting)
        self._lost |= batch.lost
        self._news.extendleft(reversed(batch.news))
        self._bytes += sum(len(news.data) for news in batch.news)

    def _drop(self, count: int) -> None:
        """Forget the oldest news; their readers are told when Redis answers again."""
        for _ in range(count):
            news = self._news.popleft()
            self._bytes -= len(news.data)
            if len(self._lost) < MAX_WAITING:  # who is not told looks into the log sometime anyway
                self._lost.add(news.channel)
        LOSSES.labels("unsent").inc(count)


def _finish(waiting: list[asyncio.Future[None]]) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(None)
