"""The shapes of the wire: what one side writes is what the other reads, whatever is in it, and the sets are closed.

Plan
- Random execution events, log payloads, requests and replies (Hypothesis, from the types themselves) come back equal.
- Every type of each closed set has a tag of its own, and the strategies reach all of them.
- An event is one line; a tag of none of the set, and a field of the wrong type, are refused.
- Unknown fields: refused in requests (a misspelt limit must not be no limit), passed over in what a newer host says.
"""

from __future__ import annotations

import builtins
import inspect
import typing
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_wire import host
from carrel_wire.events import Display, ExecutionEvent, Finished, Started, Stdout, decode_event, encode_event
from carrel_wire.log import LogPayload, UserMessage, decode_payload, type_of

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(int, st.integers(-(2**53), 2**53))
st.register_type_strategy(UUID, st.uuids())


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Return objects of a struct, or of another type, with any JSON where the type is `Any`."""
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        hints = {field.name: field.type for field in msgspec.structs.fields(kind)}
        return st.builds(kind, **{name: of(hint) for name, hint in hints.items()})
    origin, arguments = getattr(kind, "__origin__", None), get_args(kind)
    match origin:
        case builtins.list:
            found = st.lists(of(arguments[0]), max_size=3)
        case builtins.dict:
            found = st.dictionaries(TEXT, of(arguments[1]), max_size=3)
        case typing.Literal:
            found = st.sampled_from(arguments)
        case _ if arguments:  # a union
            found = st.one_of([of(argument) for argument in arguments])
        case _:
            found = JSON if kind is Any else st.none() if kind is type(None) else st.from_type(kind)
    return found


EVENTS = get_args(ExecutionEvent)
PAYLOADS = get_args(LogPayload)
STRUCTS = [
    kind
    for name, kind in vars(host).items()
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct) and not name.startswith("_")
]
REQUESTS = [kind for kind in STRUCTS if kind.__struct_config__.forbid_unknown_fields]
QUIET = settings(max_examples=30)


@pytest.mark.parametrize("kind", EVENTS)
@QUIET
@given(st.data())
def test_events_come_back_equal(kind: Any, data: st.DataObject) -> None:
    event = data.draw(of(kind))
    line = encode_event(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_event(line) == event
    assert msgspec.json.decode(line)["type"] == kind.__struct_config__.tag


@pytest.mark.parametrize("kind", PAYLOADS)
@QUIET
@given(st.data())
def test_log_payloads_come_back_equal(kind: Any, data: st.DataObject) -> None:
    payload = data.draw(of(kind))
    text = msgspec.json.encode(payload)
    assert decode_payload(text) == payload
    assert decode_payload(text.decode()) == payload
    assert type_of(payload) == msgspec.json.decode(text)["type"]


@pytest.mark.parametrize("kind", STRUCTS)
@QUIET
@given(st.data())
def test_requests_and_replies_come_back_equal(kind: Any, data: st.DataObject) -> None:
    body = data.draw(of(kind))
    assert msgspec.json.decode(msgspec.json.encode(body), type=kind) == body


def test_the_sets_are_closed_and_their_names_differ() -> None:
    for kinds, count in ((EVENTS, 11), (PAYLOADS, 22)):
        assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds) == count
    assert {kind.__struct_config__.tag for kind in EVENTS} == {
        *("started", "stdout", "stderr", "display", "result", "error"),
        *("clear", "input_request", "artifact", "truncated", "finished"),
    }


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "unknown", "n": 1}',
        b'{"n": 1}',
        b'{"type": "stdout", "n": "1", "text": ""}',
        b'{"type": "stdout", "n": 1}',
        b'{"type": "finished", "n": 1, "status": "fine", "wall_seconds": 1}',
        b"[]",
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_event(line)


def test_what_is_no_json_is_refused() -> None:
    for line in (b"", b'{"type": "stdout"', b"\xff"):
        with pytest.raises(msgspec.DecodeError):
            decode_event(line)
    with pytest.raises(msgspec.ValidationError):
        decode_payload('{"type": "message.nobody"}')


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_misspelt_field_of_a_request_is_refused(kind: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"memory_limit_byte": 1}', type=kind)


def test_requests_are_the_strict_ones() -> None:
    names = {kind.__name__ for kind in REQUESTS}
    assert names == {kind.__name__ for kind in STRUCTS if kind.__name__.endswith("Request")}
    assert len(names) == 6


def test_what_a_newer_host_says_is_passed_over() -> None:
    assert decode_event(b'{"type": "stdout", "n": 1, "text": "x", "new": true}') == Stdout(n=1, text="x")


def test_defaults_are_left_out_and_come_back() -> None:
    assert encode_event(Display(n=1, data={})) == b'{"type":"display","n":1,"data":{}}\n'
    assert decode_event(b'{"type":"finished","n":2,"status":"ok","wall_seconds":0.5}') == Finished(
        n=2, status="ok", wall_seconds=0.5
    )
    with pytest.raises(msgspec.ValidationError):
        decode_event(b'{"type":"started","n":1,"kernel_id":"main"}')
    assert Started.__struct_fields__[0] == "n"


def test_nothing_of_the_wire_can_be_changed_in_place() -> None:
    message = UserMessage(message_id=UUID(int=1), content="x")
    with pytest.raises(AttributeError):
        message.content = "y"  # type: ignore[misc]
