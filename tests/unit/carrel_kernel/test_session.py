"""The messages of a kernel, compared with those of the class that they must equal.

Plan
- What is sent is, frame by frame, what `jupyter_client` sends, for usual messages and odd ones, and reads back.
- A parent header that was changed is packed anew.
- What is received is what `jupyter_client` makes of it, and what it refuses is refused.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
import zmq
from jupyter_client.session import Session

from carrel_kernel.inside import packing
from carrel_kernel.inside.session import KernelSession

KEY = b"k" * 64
DATES: list[Any] = [
    "2026-11-30T19:37:36.123456Z",
    "2026-11-30T19:37:36Z",
    "2026-11-30T19:37:36.1+00:00",
    "2026-11-30T19:37:36+02:00",
    "2026-11-30T24:00:00Z",
    "2026-99-30T19:37:36.123456Z",
    "2026-11-30 19:37:36Z",
    "2026-11-30T",
    "",
    7,
    None,
    {"date": "2026-11-30T19:37:36Z"},
]


class Sent:
    """Stands for the sending thread."""

    def __init__(self) -> None:
        self.frames: list[list[bytes]] = []
        self.copies: list[bool] = []

    def send_multipart(self, frames: list[bytes], copy: bool = True) -> None:
        self.frames.append(frames)
        self.copies.append(copy)


def sessions() -> tuple[KernelSession, Session]:
    """Return the kernel's class and its base, alike in all that goes into a message."""
    kernel, base = (
        kind(key=KEY, session="the-session", username="me", pack=packing.pack) for kind in (KernelSession, Session)
    )
    base.message_count = kernel.message_count
    return kernel, base


def sent(session: Session, *args: Any, **kwargs: Any) -> tuple[list[bytes], bool]:
    stream = Sent()
    session.send(stream, *args, **kwargs)
    return stream.frames[0], stream.copies[0]


HEADER = {"msg_id": "1", "msg_type": "status", "username": "é", "session": "s", "version": "5.4"}


@pytest.mark.parametrize(
    "date",
    [
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        "2026-01-02T00:00:00Z",
        float("nan"),
        None,
    ],
)
@pytest.mark.parametrize(
    "content", [{"execution_state": "busy"}, {"a": float("nan"), "b": "\ud800é"}, {1: object}, {}, None, b"{}", "{}"]
)
def test_what_is_sent_is_what_the_base_class_sends(date: Any, content: Any) -> None:
    header = {**HEADER, "date": date}
    for parent in ({}, header, {"header": header}):
        for metadata in (None, {"status": "ok"}):
            for ident in (None, b"topic", [b"one", b"two"]):
                message = {"parent": parent, "metadata": metadata, "ident": ident, "header": header}
                kernel, base = sessions()
                assert sent(kernel, "status", content, **message) == sent(base, "status", content, **message)


def test_a_message_that_is_ready_is_sent_as_it_is() -> None:
    kernel, base = sessions()
    message = {"header": HEADER, "parent_header": HEADER, "metadata": {}, "content": {"a": 1}, "buffers": []}
    assert sent(kernel, dict(message), ident=b"x") == sent(base, dict(message), ident=b"x")
    message["buffers"] = [b"a buffer"]
    frames, _ = sent(kernel, dict(message))
    assert frames == sent(base, dict(message))[0]
    assert frames[-1] == b"a buffer"


def test_a_large_message_is_not_copied() -> None:
    kernel, base = sessions()
    content = {"text": "x" * 2**17}
    assert sent(kernel, "stream", content)[1] is sent(base, "stream", content)[1] is False


def test_a_parent_that_was_changed_is_packed_anew() -> None:
    kernel, _ = sessions()
    parent: dict[str, Any] = {**HEADER}
    for id_ in ("1", "1", "2", "1"):
        parent["msg_id"] = id_
        frames, _ = sent(kernel, "status", {}, parent=parent)
        assert orjson.loads(frames[3]) == parent


def test_a_forked_process_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = sessions()
    monkeypatch.setattr(kernel, "pid", os.getpid() + 1)
    stream = Sent()
    assert kernel.send(stream, "status", {}) is None
    assert not stream.frames


def received(session: Session, frames: list[bytes], **how: Any) -> Any:
    """Return the message of frames, or how it was refused."""
    try:
        if how.get("copy") is False:
            return session.deserialize([zmq.Frame(frame) for frame in frames], **how)
        return session.deserialize(frames, **how)
    except (ValueError, TypeError, KeyError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("version", ["5.4", "5.0", "4.1", None])
@pytest.mark.parametrize("copy", [True, False])
def test_what_is_received_is_what_the_base_class_makes_of_it(date: Any, version: str | None, copy: bool) -> None:
    kernel, base = sessions()
    header = {**HEADER, "date": date, "version": version}
    if version is None:
        del header["version"]
    parts = [orjson.dumps(part) for part in (header, header, {"cellId": "c"}, {"code": "1", "data": {}})]
    frames = [base.sign(parts), *parts]
    for content in (False, True):
        assert received(kernel, frames, content=content, copy=copy) == received(
            base, frames, content=content, copy=copy
        )
    again = received(kernel, frames, copy=copy)
    assert again == received(base, frames, copy=copy)
    assert "Duplicate" in again[1]


@pytest.mark.parametrize("copy", [True, False])
def test_what_the_base_class_refuses_is_refused(copy: bool) -> None:
    parts = [orjson.dumps(part) for part in (HEADER, {}, {}, {"code": "1"})]
    signature = sessions()[1].sign(parts)
    for frames in (
        [b"", *parts],
        [b"wrong", *parts],
        [signature, *parts[:3], b"{}"],
        [signature, *parts[:3]],
        [signature[:-1], *parts, b"a buffer"],
    ):
        kernel, base = sessions()
        refused = received(kernel, frames, copy=copy)
        assert refused == received(base, frames, copy=copy)
        assert isinstance(refused, tuple)


def test_buffers_are_received() -> None:
    kernel, base = sessions()
    parts = [orjson.dumps(part) for part in (HEADER, {}, {}, {})]
    message = received(kernel, [base.sign(parts), *parts, b"a buffer"])
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"a buffer"]
