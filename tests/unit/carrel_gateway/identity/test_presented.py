"""The form of keys and tickets.

Plan: one that was made names its tenant and nobody else's kind; whatever is changed in it names none; header forms.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.identity.presented import Kind, bearer, digest_of, from_subprotocols, hint_of, make, tenant_of

TENANT = UUID("0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee")


@given(st.uuids())
def test_what_was_made_names_its_tenant(tenant_id: UUID):
    for kind, other in ((Kind.KEY, Kind.TICKET), (Kind.TICKET, Kind.KEY)):
        made = make(kind, tenant_id)
        assert tenant_of(kind, made) == tenant_id
        assert tenant_of(other, made) is None
        assert tenant_of(other, other.value + made.removeprefix(kind.value)) is None
        assert made.isascii()
        assert len(made) == 74


def test_no_two_are_alike():
    made = {make(Kind.KEY, TENANT) for _ in range(100)}
    assert len(made) == 100
    assert len({digest_of(key) for key in made}) == 100


@given(st.integers(0, 73), st.characters(codec="utf-8"))
def test_whatever_is_changed_names_none(place: int, character: str):
    made = make(Kind.KEY, TENANT)
    changed = made[:place] + character + made[place + 1 :]
    assert changed == made or tenant_of(Kind.KEY, changed) is None


@given(st.text())
def test_any_text_is_looked_at(text: str):
    assert tenant_of(Kind.KEY, text) is None
    assert tenant_of(Kind.KEY, "crl_" + text) is None


def test_shorter_longer_and_padded_ones():
    made = make(Kind.KEY, TENANT)
    for other in (made[:-1], made + "A", made + "=", made + "==", made + "\n", " " + made, made.upper(), "\udcff"):
        assert tenant_of(Kind.KEY, other) is None


def test_a_hint_is_the_end_alone():
    made = make(Kind.KEY, TENANT)
    assert hint_of(made) == made[-4:]


@pytest.mark.parametrize(
    ("header", "key"),
    [(None, None), ("", None), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None)],
)
def test_bearer(header, key):
    assert bearer(header) == key


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (None, None)),
        ("carrel.v1, carrel.ticket.abc", ("abc", "carrel.v1")),
        ("carrel.ticket.abc", ("abc", "carrel.ticket.abc")),
        ("carrel.key.abc", (None, "carrel.key.abc")),
        ("chat", (None, "chat")),
    ],
)
def test_subprotocols(header, expected):
    assert from_subprotocols(header) == expected
