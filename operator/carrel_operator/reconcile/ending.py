"""What follows when a session is over by its own terms: its pod goes, its object is retained or deleted. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from carrel_api.common import Condition
from carrel_operator.plan import DeleteSession, Plan
from carrel_operator.reconcile.around import Around, sooner
from carrel_operator.statements import ACTIVE
from carrel_operator.status import FINISHED, Statement, ready


def finish(around: Around, reason: str, message: str) -> Plan:
    """Return what ends the session now."""
    if around.wanted.spec.shutdown_policy == "Delete":
        return Plan(actions=(DeleteSession(),))
    said = f"{message}; it is retained without a pod, delete it when it is no longer needed"
    status = around.status(
        replace_pod=True,
        said=(ready("Expired", said), ACTIVE, Statement(FINISHED, "True", reason, message)),
    )
    ended = next(condition for condition in status.conditions if condition.type == FINISHED)
    return replace(finished(around, ended), status=status)


def finished(around: Around, ended: Condition) -> Plan:
    """Return what a session needs that has ended."""
    plan = Plan(actions=around.pod_removal(), after=around.force_after())
    lasts = around.wanted.spec.ttl_seconds_after_finished
    if lasts is None:
        return plan
    left = ended.last_transition_time + timedelta(seconds=lasts) - around.now
    return Plan(actions=(DeleteSession(),)) if left <= timedelta() else sooner(plan, left)
