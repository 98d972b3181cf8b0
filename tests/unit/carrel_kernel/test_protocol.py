"""Signed Jupyter messages: jupyter_client as oracle both ways; what a hostile kernel sends is refused or cut."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from carrel_kernel import protocol
from carrel_kernel.protocol import MalformedError, TooComplexError

KEY = b"key"
PARTS = st.lists(st.binary(max_size=10), min_size=4, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def verify(key: bytes, frames: list[bytes]) -> list[bytes]:
    return protocol.verify(key, frames, protocol.Signatures())


def test_jupyter_client_takes_what_the_host_sends() -> None:
    session = Session(key=KEY, signature_scheme="hmac-sha256")
    frames = protocol.pack(KEY, protocol.header("execute_request", "id", "s"), {"code": "ä"})
    _, parts = session.feed_identities(frames)
    message = session.deserialize(parts)
    assert message["content"] == {"code": "ä"}
    assert message["msg_id"] == "id"
    assert message["header"]["date"].tzinfo


def test_the_host_takes_what_jupyter_client_sends() -> None:
    session = Session(key=KEY, signature_scheme="hmac-sha256")
    parent = session.msg("execute_request", {})
    frames = session.serialize(session.msg("stream", {"name": "stdout", "text": "ä"}, parent=parent), ident=b"topic")
    message = protocol.unpack(verify(KEY, [bytes(zmq.Frame(frame)) for frame in frames]))
    assert message.header.msg_type == "stream"
    assert message.parent.msg_id == parent["header"]["msg_id"]
    assert message.content() == {"name": "stdout", "text": "ä"}


@given(PARTS)
def test_signed_is_verified(parts: list[bytes]) -> None:
    assert verify(KEY, [b"topic", *protocol.sign(KEY, parts)]) == parts


@given(PARTS, st.integers(0, 5), st.binary(max_size=3))
def test_what_is_changed_is_refused(parts: list[bytes], place: int, added: bytes) -> None:
    frames = protocol.sign(KEY, parts)
    place %= 5
    changed = [*frames]
    changed[place + 1] += added or b"x"
    if b"".join(changed[2:6]) == b"".join(frames[2:6]) and changed[1] == frames[1]:
        return
    with pytest.raises(MalformedError):
        verify(KEY, changed)
    with pytest.raises(MalformedError):
        verify(b"another key", frames)


def test_the_same_message_is_taken_once() -> None:
    seen = protocol.Signatures(kept=2)
    first, second, third = (protocol.sign(KEY, [b"%d" % number, b"", b"", b""]) for number in range(3))
    for frames in (first, second):
        protocol.verify(KEY, frames, seen)
        with pytest.raises(MalformedError):
            protocol.verify(KEY, [b"another topic", *frames], seen)
    with pytest.raises(MalformedError):
        protocol.verify(KEY, [third[0], third[1][:-1], *third[2:]], seen)  # nobody fills it with forgeries
    with pytest.raises(MalformedError):
        protocol.verify(KEY, first, seen)
    protocol.verify(KEY, third, seen)
    protocol.verify(KEY, first, seen)  # the latest are kept, and no more


@pytest.mark.parametrize(
    "frames", [[], [b"x"], [protocol.DELIMITER], [protocol.DELIMITER, b"sig"], [protocol.DELIMITER, b"", b"", b"", b""]]
)
def test_missing_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        verify(KEY, frames)


LONG = json.dumps({"msg_id": "x" * 1001}).encode()


@pytest.mark.parametrize("header", [b"", b"[]", b"5", b"{", b"\xff", b'{"msg_id": 5}', b'{"a":' * 100_000, LONG])
def test_a_header_of_another_shape_is_refused(header: bytes) -> None:
    for parts in ([header, b"{}", b"{}", b"{}"], [b"{}", header, b"{}", b"{}"]):
        with pytest.raises(MalformedError):
            protocol.unpack(parts)


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"null", b"{", b'"x"', b'{"a":' * 100_000])
def test_content_of_another_shape_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedError):
        protocol.unpack([b"{}", b"{}", b"{}", content]).content()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'{"a": "\\ud800"}', {"a": "?"}),
        (b'{"\\ud800": 1}', {"?": 1}),
        (b'{"a": 1e400}', {"a": math.inf}),
    ],
)
def test_what_is_no_unicode_is_replaced(data: bytes, value: Any) -> None:
    assert protocol.loads(data) == value


@given(JSON)
def test_cleaned_data_can_always_be_sent(value: Any) -> None:
    text = json.dumps(value).encode()
    found = protocol.clean(protocol.loads(text))
    json.dumps(found, ensure_ascii=False).encode()


PADDING = '"' + "x" * 70_000 + '"'  # what is short is not looked at


@given(JSON, st.integers(-2, 2))
def test_documents_with_more_values_than_the_limit_are_refused(value: Any, more: int) -> None:
    count = counted(value) + 2
    document = f"[{PADDING},{json.dumps(value)}]".encode()
    if more <= 0:
        with pytest.raises(TooComplexError):
            protocol.check_values(document, max(1, count + more))
    else:
        protocol.check_values(document, count + more)


def counted(value: Any) -> int:
    """Return how many brackets, braces and commas a value has."""
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return isinstance(value, dict | list) + max(0, len(items) - 1) + sum(map(counted, items))


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * 10**6 + b"1]",
        b"[" + b'"",' * 10**6 + b"1]",
        b'{"a":{}},' * 10**6,
        b"," * 40_000_000,
    ],
    ids=["lists", "strings", "objects", "too long to look"],
)
def test_bombs_of_values_are_refused_before_they_are_made(data: bytes) -> None:
    with pytest.raises(TooComplexError):
        protocol.loads(data)


@pytest.mark.parametrize(
    "data", [b'","' * 10**6, b'["' + b'\\",' * 10**6, b'"' + b"\\," * 10**6, b'"' * 10**6 + b"," * 10**6]
)
def test_texts_without_end_take_no_time(data: bytes) -> None:
    """Were the search to begin anew at each quote, this would take hours."""
    with pytest.raises(MalformedError):
        protocol.loads(data)


def test_text_may_have_any_number_of_commas() -> None:
    assert protocol.loads(json.dumps({"text": "a,b[{\n" * 10**6}).encode())["text"].count(",") == 10**6


def test_what_is_not_quite_json_has_a_lower_limit() -> None:
    for unit, fine in ((b"1,", True), (b'"\xff",', False)):
        data = b"[" + unit * 30_000 + b"1]"
        if fine:
            assert len(protocol.loads(data)) == 30_001
        else:
            with pytest.raises(TooComplexError):
                protocol.loads(data)


def test_huge_numbers_and_depths() -> None:
    assert protocol.clean(2**63) == float(2**63)
    assert protocol.clean(-(2**63)) == -(2**63)
    assert protocol.clean(10**400) == "a very large integer"
    assert protocol.clean(True) is True
    deep: Any = 1
    for _ in range(101):
        deep = [deep]
    with pytest.raises(MalformedError):
        protocol.clean(deep)
    assert protocol.clean(deep[0]) == deep[0]


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (2**31 - 1, 2**31 - 1),
        (2**31, None),
        (-1, None),
        (None, None),
        ("1", None),
        (1.0, None),
        (True, None),
        ([], None),
    ],
)
def test_counts(value: Any, count: int | None) -> None:
    assert protocol.count_of(value) == count


@pytest.mark.parametrize("value", [None, 1, "x", [], [{}]])
def test_what_is_no_object_is_an_empty_one(value: Any) -> None:
    assert protocol.object_of(value) == {}
    assert protocol.object_of({"a": value}) == {"a": value}
