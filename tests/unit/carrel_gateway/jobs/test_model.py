"""How long a job waits after it failed, and kinds by their names."""

from __future__ import annotations

import pytest

from carrel_gateway.jobs.model import ATTEMPTS, Job, Kind, by_name, wait_seconds


async def nothing(_: Job) -> None:
    """Do nothing."""


def test_waits_double_up_to_an_hour_and_half_of_each_is_drawn():
    assert [wait_seconds(attempts, 1.0) for attempts in (1, 2, 3, 4)] == [5, 10, 20, 40]
    assert [wait_seconds(attempts, 0.0) for attempts in (1, 2, 3, 4)] == [2.5, 5, 10, 20]
    assert [wait_seconds(attempts, 1.0) for attempts in (10, 11, 1000)] == [2560, 3600, 3600]
    assert 2.5 < wait_seconds(1, 0.3) < 5


def test_a_part_may_be_away_for_five_minutes_at_least():
    assert sum(wait_seconds(attempts, 0.0) for attempts in range(1, ATTEMPTS)) > 300


def test_kinds_have_names_of_their_own():
    first, second = Kind("a", nothing), Kind("b", nothing)
    assert dict(by_name([first, second])) == {"a": first, "b": second}
    with pytest.raises(ValueError, match="same name"):
        by_name([first, Kind("a", nothing)])
