"""The output thread of a kernel.

Plan
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
