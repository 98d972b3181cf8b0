"""The output thread of a kernel.

Plan
- What begins and ends a cell can wait, and is sent when the thread is hurried; other messages do not wait.
- Whoever has more for the thread than it can do in time waits for it, and nothing is lost.
- A subscriber that comes while a message is sent is welcomed, though the socket's descriptor says nothing of it.
"""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from carrel_kernel.inside import streams

DEADLINE_MILLISECONDS = 30_000


@pytest.fixture
def output(tmp_path: Path) -> Iterator[streams.OutputThread]:
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.bind(f"ipc://{tmp_path}/output")
    thread = streams.OutputThread(socket, session=Session(key=b"key"))
    thread.start()
    yield thread
    ended = threading.Event()
    thread._event_pipe_gc_task.add_done_callback(lambda _: ended.set())
    thread.schedule(thread._event_pipe_gc_task.cancel)  # it would be destroyed while it waits
    ended.wait(30)
    thread.stop()
    thread.close()
    context.destroy(linger=0)


def test_what_waits_for_the_thread_is_bounded(output: streams.OutputThread) -> None:
    go_on, done = threading.Event(), []
    waited: list[int] = []

    def schedule() -> None:
        for number in range(3 * streams._MAX_EVENTS):
            waited.append(len(output._events))
            output.schedule(lambda number=number: done.append(number))

    output.schedule(lambda: go_on.wait(30))
    writer = threading.Thread(target=schedule)
    writer.start()
    while len(output._events) <= streams._MAX_EVENTS:
        writer.join(0.01)
    go_on.set()
    writer.join(30)
    ended = threading.Event()
    output.schedule(ended.set)
    assert ended.wait(30)
    assert done == list(range(3 * streams._MAX_EVENTS))
    assert max(waited) <= streams._MAX_EVENTS + 2


@pytest.mark.parametrize(
    ("topic", "waits"),
    [
        (b"kernel.1.status", True),
        (b"kernel.1.execute_input", True),
        (b"kernel.1.execute_result", True),
        (b"display_data", False),
        (b"error", False),
    ],
)
def test_only_what_begins_and_ends_a_cell_can_wait(
    output: streams.OutputThread, monkeypatch: pytest.MonkeyPatch, topic: bytes, waits: bool
) -> None:
    rung: list[str] = []
    monkeypatch.setattr(output._bell, "ring_soon", lambda: rung.append("soon"))
    monkeypatch.setattr(output._bell, "ring", lambda: rung.append("now"))
    output.background_socket.send_multipart([topic, b"a message"])
    assert rung == ["soon" if waits else "now"]
    monkeypatch.undo()
    output.hurry()
    sent = threading.Event()
    output.schedule(sent.set)
    assert sent.wait(30)
    assert not output._events


def test_who_subscribes_while_a_message_is_sent_is_welcomed(output: streams.OutputThread) -> None:
    begun = threading.Event()

    def send() -> None:
        descriptor = output.socket.getsockopt(zmq.FD)
        begun.set()
        select.select([descriptor], [], [], 30)  # until it tells of the subscriber
        while select.select([descriptor], [], [], 0.2)[0]:  # sending takes that
            output._really_send([b"a message"])

    with output.socket.context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.RCVTIMEO, DEADLINE_MILLISECONDS)
        output.schedule(send)
        assert begun.wait(30)
        subscriber.connect(output.socket.last_endpoint)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        while (frames := subscriber.recv_multipart()) == [b"a message"]:
            pass
        _, _, header, *_ = frames
        assert json.loads(header)["msg_type"] == "iopub_welcome"
