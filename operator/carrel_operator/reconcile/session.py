"""Decides what a session needs next. The order of questions: is it over, is it suspended, has it a pod, does it answer.

The last two are in `running`, what follows an end in `ending`. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from carrel_api.session import AgentSession
from carrel_operator.lifetimes import ending
from carrel_operator.observed import Observed
from carrel_operator.plan import DeletePod, Plan
from carrel_operator.reconcile.around import Around, sooner
from carrel_operator.reconcile.ending import finish, finished
from carrel_operator.reconcile.running import decide_running
from carrel_operator.saving import nothing_to_save, suspending, withdrawn
from carrel_operator.statements import UNFINISHED, suspended
from carrel_operator.status import FINISHED


def reconcile(wanted: AgentSession, observed: Observed, now: datetime) -> Plan:
    """Return what to do about the session.

    Parameters
    ----------
    wanted
        The session with the status that was last written.
    observed
        What was seen in this pass.
    now
        Present time, in whole seconds as Kubernetes stores it.
    """
    if wanted.metadata.deletion_timestamp is not None:
        return Plan()  # the garbage collector takes what it owns
    around = Around(wanted, observed, now)
    over = around.before.condition(FINISHED)
    if over is not None and over.status == "True":
        return _with_one_pod(finished(around, over), observed)
    end = ending(wanted, around.limits)
    if end is not None and end.at <= now:
        return _with_one_pod(finish(around, "Expired", end.message), observed)
    decide = _suspended if wanted.spec.operating_mode == "Suspended" else decide_running
    plan = _with_one_pod(decide(around), observed)
    return sooner(plan, end.at - now) if end is not None else plan


def _suspended(around: Around) -> Plan:
    """Take the pod away, once what is in it is saved; until then it stays as it is."""
    if not nothing_to_save(around.wanted, around.observed.pod, saves=around.observed.saves):
        return decide_running(replace(around, more=suspending(around.wanted)))
    said = suspended(around.wanted, gone=around.observed.pod is None)
    status = around.status(replace_pod=True, said=(*said, UNFINISHED, *withdrawn(around.before, "Suspended")))
    return Plan(actions=around.pod_removal(), status=status, after=around.force_after())


def _with_one_pod(plan: Plan, observed: Observed) -> Plan:
    """Take every further pod of the session away: it has one."""
    more = tuple(DeletePod(pod.name, pod.uid) for pod in observed.further_pods if pod.deleted_at is None)
    return replace(plan, actions=(*more, *plan.actions)) if more and observed.failure is None else plan
