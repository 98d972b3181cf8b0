"""Both framings of Jupyter messages over a WebSocket: jupyter_server's own code as oracle, and nonsense."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

from carrel_kernel.framing import FramingError, pack_legacy, pack_v1, unpack_legacy, unpack_v1

OBJECTS = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(-5, 5), max_size=3)
PARTS = st.builds(
    lambda objects, buffers: [*(json.dumps(each).encode() for each in objects), *buffers],
    st.lists(OBJECTS, min_size=4, max_size=4),
    st.lists(st.binary(max_size=20), max_size=3),
)
CHANNELS = st.sampled_from(["shell", "control", "stdin", "iopub"])


@given(CHANNELS, PARTS)
def test_v1_is_what_jupyter_server_reads_and_writes(channel: str, parts: list[bytes]) -> None:
    frame = pack_v1(channel, parts)
    assert deserialize_msg_from_ws_v1(frame) == (channel, parts)
    assert frame == serialize_msg_to_ws_v1(parts, channel)
    assert unpack_v1(frame) == (channel, parts)


@given(CHANNELS, PARTS)
def test_legacy_is_what_jupyter_server_reads(channel: str, parts: list[bytes]) -> None:
    frame = pack_legacy(channel, parts)
    message = json.loads(frame) if isinstance(frame, str) else deserialize_binary_message(frame)
    assert isinstance(frame, str) == (len(parts) == 4)
    assert message["channel"] == channel
    assert [bytes(buffer) for buffer in message["buffers"]] == parts[4:]
    for name, part in zip(("header", "parent_header", "metadata", "content"), parts, strict=False):
        assert message[name] == json.loads(part)
    assert same(unpack_legacy(frame), (channel, parts))


@given(CHANNELS, PARTS)
def test_legacy_is_what_jupyter_server_writes(channel: str, parts: list[bytes]) -> None:
    names = ("header", "parent_header", "metadata", "content")
    message: dict[str, Any] = {name: json.loads(part) for name, part in zip(names, parts, strict=False)}
    frame = serialize_binary_message({**message, "channel": channel, "buffers": parts[4:]})
    assert same(unpack_legacy(bytes(frame)), (channel, parts))


def same(found: tuple[str, list[bytes]], wanted: tuple[str, list[bytes]]) -> bool:
    return found[0] == wanted[0] and [
        *(json.loads(part) for part in found[1][:4]),
        *found[1][4:],
    ] == [*(json.loads(part) for part in wanted[1][:4]), *wanted[1][4:]]


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b'{"a":1},"channel":"x"', b"{}", b"[]"]), min_size=4))
def test_whatever_a_kernel_sends_is_one_message_or_refused(parts: list[bytes]) -> None:
    try:
        frame = pack_legacy("iopub", parts)
    except FramingError:
        return
    message = json.loads(frame) if isinstance(frame, str) else deserialize_binary_message(frame)
    assert message["channel"] == "iopub"
    assert set(message) == {
        "header",
        "parent_header",
        "metadata",
        "content",
        "msg_id",
        "msg_type",
        "channel",
        "buffers",
    }


@settings(max_examples=500)
@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_frame_is_a_message_or_refused(data: bytes, text: str) -> None:
    for unpack, frame in ((unpack_v1, data), (unpack_legacy, data), (unpack_legacy, text)):
        try:
            channel, parts = unpack(frame)  # type: ignore[operator]
        except FramingError:
            continue
        assert isinstance(channel, str)
        assert all(isinstance(json.loads(part), dict) for part in parts[:4])


@settings(max_examples=300)
@given(PARTS, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5), st.integers(0, 400))
def test_a_damaged_frame_is_a_message_or_refused(
    parts: list[bytes], changes: list[tuple[int, int]], length: int
) -> None:
    for pack, unpack in ((pack_v1, unpack_v1), (pack_legacy, unpack_legacy)):
        frame = pack("shell", [*parts, b"buffer"])
        assert isinstance(frame, bytes)
        damaged = bytearray(frame)
        for place, value in changes:
            damaged[place % len(damaged)] = value
        try:
            unpack(bytes(damaged[: max(1, len(damaged) - length)]))
        except FramingError:
            continue


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00" * 8,
        struct.pack("<Q", 2**63),
        struct.pack("<8Q", 7, 64, 60, 70, 72, 74, 76, 78) + b"x" * 20,
        struct.pack("<8Q", 7, 64, 69, 71, 73, 75, 77, 10**6) + b"shell" + b"{}" * 4,
        pack_v1("shell", [b"[]", b"{}", b"{}", b"{}"]),
        pack_v1("shell", [b"{}", b"{}", b"{}"]),
        pack_v1("shell", [b"{}", b"{}", b"{}", b'{"a":' * 100_000]),
        pack_v1("shell", [b"{}"] * 2000),
    ],
)
def test_malformed_v1(frame: bytes) -> None:
    with pytest.raises(FramingError):
        unpack_v1(frame)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "[]",
        "5",
        '{"channel": 5}',
        '{"header": []}',
        '{"header": "x"}',
        '{"a":' * 100_000,
        b"",
        struct.pack("!I", 0),
        struct.pack("!I", 5000),
        struct.pack("!2I", 1, 100),
        struct.pack("!3I", 2, 20, 12) + b"{}",
    ],
)
def test_malformed_legacy(frame: str | bytes) -> None:
    with pytest.raises(FramingError):
        unpack_legacy(frame)


def test_a_legacy_message_may_leave_parts_out() -> None:
    assert unpack_legacy('{"header": {"msg_id": "1"}, "content": null}') == (
        "shell",
        [b'{"msg_id": "1"}', b"{}", b"{}", b"{}"],
    )
