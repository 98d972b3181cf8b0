"""A thousand sessions of one tenant do not hold up those of another.

Plan: with the operator stopped, one tenant makes a thousand sessions and then another one a few; started again, it has
all of them before it at once, and the audit log tells in which order it turned to them. What the other tenant waits in
a run before the flood and in it is printed, not asserted: machines differ, the order of turns does not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.operator.conftest import Deployed
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.provider.base import Cluster
from tests.support.audit import AuditLog, Mark

FLOOD = 1000
FEW = 20
WORKERS = 32
"""At the same time, as the operator's settings have it."""
MOST_BEFORE = FEW + 2 * WORKERS + 100
"""Turns of the flood before the last of the few: one each, what is in work at the time, and some room."""


@contextmanager
def without_operator(cluster: Cluster, pair: Deployed) -> Iterator[None]:
    scale = ("scale", "deployment/operator", "-n", pair.control)
    cluster.kubectl(*scale, "--replicas=0")
    cluster.kubectl("wait", "pod", "-l=app.kubernetes.io/component=operator", "-n", pair.control, "--for=delete")
    try:
        yield
    finally:
        cluster.kubectl(*scale, "--replicas=2")


def first_turns(pair: Deployed, audit: AuditLog, mark: Mark) -> list[str]:
    """Return the sessions in the order in which something was first said of them, whatever became of the request."""
    writes = (write for write in audit.since(mark) if write.user == pair.user)
    told = sorted((w for w in writes if w.resource == "agentsessions/status"), key=lambda write: write.received)
    return list(dict.fromkeys(write.name for write in told))


def waits(desks: Sessions, class_name: str, until: float = 0.0) -> list[float]:
    """Return the milliseconds from making a session until something is said of it: a few times, or until then."""
    found: list[float] = []
    while len(found) < FEW or time.monotonic() < until:
        began = time.monotonic()
        desks.wait(desks.create(className=class_name, tenant="few"), reason="ClassNotFound")
        found.append((time.monotonic() - began) * 1000)
    return found


def test_a_flood_of_one_tenant_does_not_hold_up_another(
    cluster: Cluster, pair: Deployed, audit: AuditLog, desks: Sessions
):
    none = f"{pair.class_name}-none"  # there is none: each session costs one write, and no node has to do with it
    calm = waits(desks, none)
    with without_operator(cluster, pair):
        flood = desks.create_many(FLOOD, className=none, tenant="many")
        few = desks.create_many(FEW, className=none, tenant="few")
        mark = audit.mark()
    flooded = waits(desks, none)
    desks.wait(few[-1], reason="ClassNotFound")
    eventually("all of them had a turn", lambda: {*flood, *few} <= set(first_turns(pair, audit, mark)))
    turns = first_turns(pair, audit, mark)
    last = max(turns.index(name) for name in few)
    before = sum(name in set(flood) for name in turns[:last])
    print(
        f"turns of the flood before the last of {FEW}: {before} of {FLOOD}; wait of the other tenant in ms, "
        f"median and longest: {statistics.median(calm):.0f} and {max(calm):.0f} before, "
        f"{statistics.median(flooded):.0f} and {max(flooded):.0f} in the flood, which began with the operator's start"
    )
    assert before <= MOST_BEFORE
