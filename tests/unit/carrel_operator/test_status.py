"""Conditions keep the time of their last transition, and long messages are cut."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.carrel_operator.factories import NOW

from carrel_operator.status import MAX_MESSAGE, Statement, conditions, ready

LATER = NOW + timedelta(minutes=1)


def test_a_new_condition_begins_now():
    [condition] = conditions([], [ready("Starting", "soon")], generation=2, now=NOW)
    assert condition.dump() == {
        "type": "Ready",
        "status": "False",
        "reason": "Starting",
        "message": "soon",
        "lastTransitionTime": "2026-11-21T12:00:00Z",
        "observedGeneration": 2,
    }


def test_another_reason_is_no_transition():
    before = conditions([], [ready("Starting", "")], generation=1, now=NOW)
    [condition] = conditions(before, [ready("Crashed", "oh")], generation=2, now=LATER)
    assert (condition.reason, condition.last_transition_time, condition.observed_generation) == ("Crashed", NOW, 2)


def test_another_status_is_one():
    before = conditions([], [ready("Starting", "")], generation=1, now=NOW)
    [condition] = conditions(before, [Statement("Ready", "True", "Bound")], generation=1, now=LATER)
    assert condition.last_transition_time == LATER


def test_long_messages_are_cut_to_what_the_schema_takes():
    [condition] = conditions([], [ready("Unschedulable", "x" * 5000)], generation=1, now=NOW)
    assert len(condition.message) == MAX_MESSAGE
    assert condition.message.endswith("x…")
