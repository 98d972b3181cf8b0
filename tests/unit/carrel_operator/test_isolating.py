"""Isolation in a session's life: who is looked at and when, who waits for it, what takes Ready away and gives it back.

Plan: a class that requires isolation binds nobody before it was seen, and looks again; one that prefers it binds
anyway. A foreign policy takes Ready away, and Ready comes back with it. What an earlier process saw stands; what it
cannot have told is inferred only where the class let it bind nothing else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.carrel_operator.factories import (
    BOUND,
    NOW,
    POD_UID,
    gone,
    kinds,
    observed,
    pod,
    ready_status,
    said,
    session,
    session_class,
)

from carrel_operator.isolation import Sight
from carrel_operator.observed import Observed
from carrel_operator.plan import Bind, Look, Plan
from carrel_operator.reconcile import reconcile
from carrel_operator.reconcile.isolating import LOOK_AGAIN

SEEN = Sight("connected", "timeout", "timeout", NOW)
HALF_SEEN = Sight("connected", "timeout", None, NOW, "bound")
OPEN = Sight("connected", "connected", "connected", NOW)
REQUIRED = session_class({"isolation": "Required"})


def required(**parts: Any) -> Observed:
    return observed(**{"session_class": REQUIRED, "looks": True, "pod": pod(), **parts})


def isolated_status(status: str, reason: str, **parts: Any) -> dict[str, Any]:
    document = ready_status(**parts)
    document["conditions"][-1] |= {"status": status, "reason": reason, "message": "seen"}
    return document


def test_a_host_is_looked_at_before_it_is_bound():
    assert kinds(reconcile(session(), observed(pod=pod(), looks=True), NOW)) == [Look]
    assert kinds(reconcile(session(), required(), NOW)) == [Look]
    assert kinds(reconcile(session(), required(looks=False), NOW)) == [Look]
    assert kinds(reconcile(session(), observed(pod=pod(), looks=False), NOW)) == [Bind]


def test_where_isolation_is_preferred_the_look_goes_on_beside_the_start():
    assert [look.waits for look in reconcile(session(), observed(pod=pod(), looks=True), NOW).actions] == [False]
    plan = reconcile(session(), observed(pod=pod(), looks=True, looking=True), NOW)
    assert kinds(plan) == [Bind]
    assert said(plan, "Isolated")[:2] == ("Unknown", "NotSeen")
    assert [look.waits for look in reconcile(session(), required(looking=True), NOW).actions] == [True]


@pytest.mark.parametrize("sight", [SEEN, OPEN, HALF_SEEN])
def test_where_isolation_is_preferred_the_host_is_bound_whatever_was_seen(sight: Sight):
    plan = reconcile(session(), observed(pod=pod(), looks=True, sight=sight), NOW)
    assert kinds(plan) == [Bind]
    assert (said(plan, "Isolated")[0] == "True") is (sight == SEEN)


@pytest.mark.parametrize("sight", [OPEN, HALF_SEEN])
def test_where_isolation_is_required_nobody_is_bound_before_it_was_seen(sight: Sight):
    plan = reconcile(session(), required(sight=sight), NOW)
    assert (plan.actions, plan.after) == ((), LOOK_AGAIN.total_seconds())
    assert said(plan)[:2] == ("False", "NotIsolated")
    assert kinds(reconcile(session(), required(sight=sight), NOW + LOOK_AGAIN)) == [Look]
    assert kinds(reconcile(session(), required(sight=sight), NOW + LOOK_AGAIN - timedelta(seconds=1))) == []
    assert kinds(reconcile(session(), required(sight=SEEN), NOW)) == [Bind]


def after(plan: Plan) -> dict[str, Any]:
    assert plan.status is not None
    return plan.status.dump()


def test_a_foreign_policy_takes_ready_away_and_gives_it_back():
    status = isolated_status("True", "Enforced")
    plan = reconcile(session(status=status), required(binding=BOUND, sight=SEEN, foreign=("open",)), NOW)
    assert (plan.actions, said(plan)[:2]) == ((), ("False", "NotIsolated"))
    assert said(plan, "Isolated")[:2] == ("False", "ForeignPolicy")
    assert plan.after == LOOK_AGAIN.total_seconds()
    back = reconcile(session(status=after(plan)), required(binding=BOUND, sight=SEEN), NOW)
    assert said(back)[:2] == ("True", "Bound")
    assert said(back, "Isolated")[:2] == ("True", "Enforced")


def test_where_isolation_is_preferred_a_foreign_policy_is_told_alone():
    plan = reconcile(session(status=isolated_status("True", "Enforced")), observed(
        pod=pod(), binding=BOUND, foreign=("open",)), NOW)  # fmt: skip
    assert said(plan)[:2] == ("True", "Bound")
    assert said(plan, "Isolated")[:2] == ("False", "ForeignPolicy")


def test_what_an_earlier_process_saw_stands():
    for status, reason, ready in (("True", "Enforced", True), ("False", "NotEnforced", False)):
        wanted = session(status=isolated_status(status, reason))
        plan = reconcile(wanted, required(binding=BOUND), NOW)
        assert said(plan, "Isolated") == (status, reason, "seen")
        assert (said(plan)[0] == "True") is ready


def test_a_look_at_a_bound_host_adds_to_what_was_seen_before():
    wanted = session(status=isolated_status("True", "Enforced"))
    assert said(reconcile(wanted, required(binding=BOUND, sight=HALF_SEEN), NOW))[0] == "True"
    assert said(reconcile(wanted, required(binding=BOUND, sight=OPEN), NOW))[:2] == ("False", "NotIsolated")


def test_a_host_that_was_bound_by_a_process_that_could_not_say_so_was_seen_by_it():
    seen = required(binding=BOUND, sight=HALF_SEEN)
    plan = reconcile(session(), seen, NOW)
    assert said(plan)[:2] == ("True", "Bound")
    assert said(plan, "Isolated")[:2] == ("True", "Enforced")
    again = reconcile(session(status=after(plan)), seen, NOW)
    assert after(again) == after(plan)


def test_after_a_foreign_policy_and_another_process_a_bound_host_is_ready_again():
    wanted = session(status=isolated_status("False", "ForeignPolicy", endpoint=None))
    assert said(reconcile(wanted, required(binding=BOUND, sight=HALF_SEEN), NOW))[:2] == ("True", "Bound")


def test_a_host_that_was_bound_when_nobody_required_isolation_was_not_seen():
    wanted = session(status=isolated_status("Unknown", "NotSeen"))
    plan = reconcile(wanted, required(binding=BOUND, sight=HALF_SEEN), NOW)
    assert said(plan)[:2] == ("False", "NotIsolated")


def test_what_was_seen_of_another_pod_says_nothing():
    wanted = session(status=isolated_status("True", "Enforced", podUID="another"))
    assert said(reconcile(wanted, observed(pod=pod()), NOW), "Isolated")[:2] == ("Unknown", "NotSeen")


def test_a_pod_that_ends_says_nothing_of_its_isolation():
    wanted = session(status=isolated_status("True", "Enforced"))
    plan = reconcile(wanted, required(pod=pod(deletionTimestamp=gone())), NOW)
    assert plan.status is not None
    assert plan.status.condition("Isolated") is None
    assert (plan.status.pod_uid, POD_UID) == (None, wanted.status.pod_uid)
