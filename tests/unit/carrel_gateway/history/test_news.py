"""What a follower makes of news: everything once, in order; what the bus has left out is in the log."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.history.events import LiveEvent, StoredEvent, encode_payload
from carrel_gateway.history.news import LiveText, encode_gone, encode_live, encode_news, sort_out
from carrel_gateway.storage.ids import new_id
from carrel_wire.log import UserMessage


def committed(first: int, last: int, *, limit: int = 10_000) -> bytes:
    payloads = [UserMessage(message_id=new_id(), content=f"number {seq}") for seq in range(first, last + 1)]
    now = datetime.now(UTC)
    events = [
        StoredEvent(new_id(), seq, new_id(), None, "message.user", "user", payload, now)
        for seq, payload in enumerate(payloads, first)
    ]
    return encode_news(events, [encode_payload(payload) for payload in payloads], limit_bytes=limit)


def live(text: str) -> bytes:
    return encode_live(LiveEvent("text.delta", "run.1", {"text": text}))


def names(events: list) -> list:
    return [
        orjson.loads(event.document)["payload"]["text"] if isinstance(event, LiveText) else event.seq
        for event in events
    ]


def test_committed_and_live_stay_in_order_and_nothing_comes_twice():
    found = sort_out([live("a"), committed(1, 2), live("b"), committed(2, 3), committed(1, 3), live("c")], 0)
    assert names(found.events) == ["a", 1, 2, "b", 3, "c"]
    assert (found.seen, found.behind, found.gone) == (3, False, False)
    assert orjson.loads(found.events[0].document) == {
        "live": True,
        "id": "run.1",
        "type": "text.delta",
        "payload": {"text": "a"},
    }


def test_a_gap_is_for_the_log_to_fill():
    found = sort_out([committed(1, 1), committed(3, 3), live("late")], 0)
    assert (names(found.events), found.seen, found.behind) == ([1], 1, True)


def test_news_too_large_for_the_bus_are_in_the_log():
    found = sort_out([live("a"), committed(1, 2, limit=0)], 0)
    assert (names(found.events), found.seen, found.behind) == (["a"], 0, True)
    assert not sort_out([committed(1, 2, limit=0)], 2).behind, "what is there already is nothing new"


def test_a_deleted_session_is_the_end():
    found = sort_out([live("a"), encode_gone(), live("b")], 0)
    assert (names(found.events), found.gone) == (["a"], True)


def test_another_version_says_it_in_its_own_way():
    found = sort_out([live("a"), b"\x93\xa4live\xa1x\xa1y", live("b")], 0)
    assert (names(found.events), found.behind) == (["a"], True)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=30), st.integers(0, 10))
def test_numbers_have_no_gap_whatever_comes(ranges, seen):
    found = sort_out([committed(first, first + more) for first, more in ranges], seen)
    assert names(found.events) == list(range(seen + 1, found.seen + 1))
