"""Ends by the clock: the earliest of a session's own and its class's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.carrel_operator.factories import MADE, NOW, session, stamp

from carrel_api.session_class import LifeLimits
from carrel_operator.lifetimes import ending, idle_timeout, lower


def test_without_bounds_a_session_lives_for_ever():
    assert ending(session(), LifeLimits()) is None
    assert idle_timeout(session(), LifeLimits()) is None


def test_the_earliest_end_counts():
    wanted = session({"shutdownTime": stamp(NOW), "maxLifetimeSeconds": 60})
    end = ending(wanted, LifeLimits(max_lifetime_seconds=3600))
    assert end is not None
    assert (end.at, end.message) == (MADE + timedelta(seconds=60), "the session is older than 60 s")


def test_a_session_that_was_never_stored_has_no_age():
    assert ending(session({"maxLifetimeSeconds": 60}, creationTimestamp=None), LifeLimits()) is None


@pytest.mark.parametrize(
    ("first", "second", "low"), [(1, 2, 1), (2, 1, 1), (None, 2, 2), (1, None, 1), (None, None, None)]
)
def test_the_lower_bound_counts(first: int | None, second: int | None, low: int | None):
    assert lower(first, second) == low


def test_the_lower_idle_timeout_counts():
    limits = LifeLimits(idle_timeout_seconds=60)
    assert idle_timeout(session({"idleTimeoutSeconds": 600}), limits) == timedelta(seconds=60)
