"""What is said of a session's isolation, and when its pod is to be looked at before it is bound. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from carrel_operator.isolation import isolated
from carrel_operator.observed import PodView
from carrel_operator.reconcile.around import Around
from carrel_operator.saving import was_ready
from carrel_operator.status import ISOLATED, Statement

LOOK_AGAIN: Final = timedelta(seconds=10)
"""Until a pod that must be isolated, and was not seen to be, is looked at once more."""
_FOREIGN: Final = "ForeignPolicy"


def isolation_of(around: Around, pod: PodView) -> Statement:
    """Return the condition `Isolated`.

    A bound host is not asked to try anything, so what an earlier process of the operator saw of this pod stands, also
    where that process ended, or a foreign policy came between, before it could be read in the condition.
    """
    observed, before = around.observed, around.before
    known = before.condition(ISOLATED)
    stands = known is not None and before.pod_uid == pod.uid and known.reason != _FOREIGN
    if observed.foreign or observed.sight is not None or known is None or not stands:
        asked = (stands and known is not None and known.status == "True") or _was_seen(around, pod)
        return isolated(observed.sight, foreign=observed.foreign, asked_before=asked)
    return Statement(ISOLATED, known.status, known.reason, known.message)


def _was_seen(around: Around, pod: PodView) -> bool:
    """Return whether an earlier process must have seen the pod isolated, though the condition does not say so.

    It binds no host of such a class before that.
    """
    if not is_required(around) or not around.observed.bound:
        return False
    known = around.before.condition(ISOLATED)
    return known is None or known.reason == _FOREIGN or not was_ready(around.wanted, pod)


def is_required(around: Around) -> bool:
    """Return whether the session's class wants enforcement to be seen before anybody works in the pod."""
    found = around.observed.session_class
    return found is not None and found.spec.isolation == "Required"


def looks_first(around: Around) -> bool:
    """Return whether the pod is to be looked at now, before its kernel host is bound."""
    sight = around.observed.sight
    if not around.observed.looks and not is_required(around):
        return False
    if sight is None:
        return is_required(around) or not around.observed.looking
    if not is_required(around) or isolated(sight).status == "True":
        return False
    return around.now - sight.seen_at >= LOOK_AGAIN
