"""Passwords.

Plan: right and wrong ones; lengths at their bounds; the same work without a hash; a flood is refused and never more
than a few are computed at a time (threat 33); the event loop goes on meanwhile; parameters are those of RFC 9106.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher, extract_parameters

from carrel_gateway.accounts.passwords import AT_ONCE, DEFAULT_HASHER, WAITING, Passwords
from carrel_gateway.errors import InvalidInput, TooMany

QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


class Counted:
    """A hasher that waits until it is let go, and knows how many work at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.calls = 0
        self.go = threading.Event()
        self.full = threading.Event()

    def verify(self, stored: str, password: str) -> bool:
        with self.lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == AT_ONCE:
                self.full.set()
        self.go.wait(30)
        with self.lock:
            self.now -= 1
        return QUICK.verify(stored, password)

    def hash(self, password: str) -> str:
        return QUICK.hash(password)


@pytest.fixture
async def passwords():
    made = Passwords(QUICK)
    yield made
    await made.aclose()


@pytest.mark.parametrize("password", ["x" * 10, "x" * 1024, "päss wörd", "p" * 9 + "\0", "🐎" * 3])
async def test_right_and_wrong(passwords, password):
    stored = await passwords.hash(password)
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(stored, password)
    assert not await passwords.verify(stored, password + "x")
    assert not await passwords.verify(stored, password[:-1])
    assert stored != await passwords.hash(password)


@pytest.mark.parametrize("password", ["", "x" * 9, "x" * 1025, "🐎" * 257, "long enough \udcff"])
async def test_what_is_no_password(passwords, password):
    with pytest.raises(InvalidInput, match="10 to 1024 bytes") as caught:
        await passwords.hash(password)
    assert caught.value.code == "invalid_password"
    stored = await passwords.hash("x" * 10)
    assert not await passwords.verify(stored, password)


async def test_without_a_hash_nothing_is_right_after_the_same_work():
    counted = Counted()
    counted.go.set()
    passwords = Passwords(counted)
    for stored in (None, "not a hash", ""):
        assert not await passwords.verify(stored, "x" * 10)
    assert counted.calls == 3
    await passwords.aclose()


async def test_a_flood_is_refused_and_a_few_are_computed_at_a_time():
    counted = Counted()
    passwords = Passwords(counted)
    stored = await passwords.hash("correct horse")
    flood = [asyncio.create_task(passwords.verify(stored, "wrong password")) for _ in range(300)]
    assert await asyncio.to_thread(counted.full.wait, 30)
    refused = [one for one in flood if one.done()]
    assert len(refused) == 300 - AT_ONCE - WAITING
    assert all(isinstance(one.exception(), TooMany) and one.exception().retry_after_seconds for one in refused)
    counted.go.set()
    await asyncio.gather(*flood, return_exceptions=True)
    assert counted.most == AT_ONCE
    assert await passwords.verify(stored, "correct horse")  # and there is room again
    await passwords.aclose()


async def test_whoever_gives_up_waiting_gives_the_place_back():
    counted = Counted()
    passwords = Passwords(counted, at_once=1, waiting=1)
    stored = await passwords.hash("correct horse")
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await passwords.verify(stored, "correct horse")
    counted.go.set()
    assert await passwords.verify(stored, "correct horse")
    await passwords.aclose()


async def test_the_event_loop_goes_on():
    passwords = Passwords()
    turns, working = 0, asyncio.create_task(passwords.hash("correct horse"))
    while not working.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 5
    parameters = extract_parameters(await working)
    assert (parameters.memory_cost, parameters.time_cost, parameters.hash_len) == (65_536, 3, 32)
    await passwords.aclose()


def test_what_is_outdated():
    passwords = Passwords()
    assert passwords.is_outdated(QUICK.hash("correct horse"))
    assert not passwords.is_outdated(DEFAULT_HASHER.hash("correct horse"))
