"""The way of messages from one thread of a kernel to another.

Plan
- All messages of several threads are delivered, each thread's in its order, however seldom the bell rings.
- What a patient one was given comes by itself, and at once when it is hurried; a look before the time is the last one.
- A ring that is interrupted is made good by the next.
- A graphical toolkit's loop learns from the descriptor that something has come, and delivers it.
- A forked process takes no ring away from its parent.
- That a kernel's thread uses it is seen in a kernel (`tests/integration/kernel/test_protocol.py`).
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from tornado.ioloop import IOLoop

from carrel_kernel.inside import relay

DEADLINE = 30.0


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    """A loop that runs in a thread of its own."""
    loop = IOLoop(make_current=False)
    thread = threading.Thread(target=loop.start)
    thread.start()
    yield loop
    loop.add_callback(loop.stop)
    thread.join(DEADLINE)
    loop.close()


def test_every_message_of_every_thread_comes_in_order(loop: IOLoop) -> None:
    way, came, all_came = relay.Relay(), [], threading.Event()

    async def take(frames: list[Any]) -> None:
        came.append(frames)
        if len(came) == 4000:
            all_came.set()

    def send(thread: int) -> None:
        for number in range(1000):
            way.from_socket.send_multipart([thread, number])

    way.on_recv(loop, take)
    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert all_came.wait(DEADLINE)
    for number in range(4):
        assert [frames for frames in came if frames[0] == number] == [[number, n] for n in range(1000)]
    loop.add_callback(way.close)


def test_what_can_wait_comes_by_itself_or_when_it_is_hurried(loop: IOLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0.001, 1000.0):
        monkeypatch.setattr(relay, "_SOON_SECONDS", min(seconds, 0.9))
        way, came = relay.Relay(patient=True), threading.Semaphore(0)
        way.on_recv(loop, lambda _, came=came: came.release())
        for _ in range(3):
            way.send_multipart([b"a message"])
            way.send_multipart([b"another"])
            if seconds > 1:
                way.hurry()
            assert came.acquire(timeout=DEADLINE)
            assert came.acquire(timeout=DEADLINE)
        loop.add_callback(way.close)


def test_a_bell_that_was_looked_at_rings_no_more() -> None:
    answers: list[int] = []
    bell = relay.Bell(lambda: answers.append(1))
    for _ in range(2):
        bell.ring_soon()
        assert select.select([bell._timer], [], [], DEADLINE)[0]
        bell.ring_soon()
        bell.ring()
        bell.look()
        assert not select.select([bell._timer, bell.fileno()], [], [], 3 * relay._SOON_SECONDS)[0]
    assert answers == [1, 1]
    bell.close()


def test_without_timers_it_rings_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.system, "timer", lambda _: None)
    bell = relay.Bell(lambda: None)
    bell.ring_soon()
    assert select.select([bell.fileno()], [], [], 0)[0]
    bell.look()
    bell.close()


@pytest.mark.parametrize("way", ["ring", "ring_soon"])
def test_an_interrupted_ring_is_made_good(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    answers: list[int] = []
    bell = relay.Bell(lambda: answers.append(1))

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        patch.setattr(bell._timer, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(bell, way)()
    assert not select.select([bell.fileno(), bell._timer], [], [], 3 * relay._SOON_SECONDS)[0]
    getattr(bell, way)()
    assert select.select([bell.fileno(), bell._timer], [], [], DEADLINE)[0]
    bell.look()
    assert answers == [1]
    bell.close()


def test_a_loop_of_another_kind_sees_the_descriptor_and_delivers(loop: IOLoop) -> None:
    way, came = relay.Relay(), []
    way.on_recv(loop, came.append)
    loop.asyncio_loop.call_soon_threadsafe(loop.asyncio_loop.remove_reader, way.getsockopt(zmq.FD))
    hung = threading.Event()
    loop.add_callback(hung.set)
    assert hung.wait(DEADLINE)
    assert way.to_stream.flush(limit=1) == 0
    way.send(b"a message", copy=False)
    assert select.select([way.to_stream.getsockopt(zmq.FD)], [], [], DEADLINE)[0]
    assert way.to_stream.flush(limit=1) == 1
    assert [frame.bytes for frame in came[0]] == [b"a message"]
    with pytest.raises(zmq.ZMQError):
        way.getsockopt(zmq.TYPE)


def test_a_forked_process_takes_no_ring() -> None:
    bell = relay.Bell(lambda: None)
    bell.ring()
    if (child := os.fork()) == 0:
        bell.look()
        os._exit(0)
    os.waitpid(child, 0)
    assert select.select([bell.fileno()], [], [], 0)[0]
    bell.close()
