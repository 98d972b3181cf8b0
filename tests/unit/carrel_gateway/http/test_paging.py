"""Cursors of lists.

Plan: a cursor reads as the place it was written for, whatever the place; any other text, a cursor of another list,
another session or another filter, and one whose place is out of bounds are refused with the same clear problem; a page
has a cursor exactly when more follows.
"""

from __future__ import annotations

import base64
from typing import Annotated
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.errors import InvalidInput
from carrel_gateway.storage.paging import Cursors, Name, Number

NUMBERS = Cursors("numbers", Number)
OTHERS = Cursors("others", Number)
IDS = Cursors("ids", UUID)
NAMES = Cursors("names", tuple[Name, str])
SMALL = Cursors("numbers", Annotated[int, msgspec.Meta(le=9)])

names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=1000)


@given(st.integers(0, 2**63 - 1))
def test_numbers_come_back(place):
    assert NUMBERS.read(NUMBERS.write(place, "scope"), "scope") == place


@given(st.uuids())
def test_ids_come_back(place):
    assert IDS.read(IDS.write(place)) == place


@given(names, st.sampled_from(["data", "artifacts"]))
def test_names_come_back(name, category):
    session_id = uuid4()
    cursor = NAMES.write((name, category), session_id, None)
    assert NAMES.read(cursor, session_id, None) == (name, category)
    assert cursor.isascii()


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_any_other_text_is_refused(text):
    for cursors in (NUMBERS, IDS, NAMES):
        with pytest.raises(InvalidInput) as caught:
            cursors.read(text, "scope")
        assert caught.value.code == "invalid_cursor"


def test_foreign_cursors_are_refused():
    mine, other = uuid4(), uuid4()
    foreign = [
        (NUMBERS, OTHERS.write(7, mine), (mine,)),
        (NUMBERS, NUMBERS.write(7, other), (mine,)),
        (NUMBERS, NUMBERS.write(7, mine, "active"), (mine, None)),
        (NUMBERS, NUMBERS.write(7, mine)[:-1] + "A", (mine,)),
        (SMALL, NUMBERS.write(10), ()),
        (NUMBERS, IDS.write(mine), ()),
    ]
    for cursors, cursor, scope in foreign:
        with pytest.raises(InvalidInput, match="start again without it"):
            cursors.read(cursor, *scope)


@pytest.mark.parametrize(("count", "more"), [(0, False), (3, False), (4, True)])
def test_a_page_has_a_cursor_when_more_follows(count, more):
    page = NUMBERS.page(list(range(count)), 3, lambda last: last)
    assert page.items == list(range(min(count, 3)))
    assert (page.next_cursor is not None) == more
    assert not more or NUMBERS.read(page.next_cursor) == 2
