"""Which kernel hosts of pools may be had: those that answered in the container that runs, isolated where that is
wanted.

Plan: a host that was not asked, that was, that is another container by now; isolation wanted and not; one claim at a
time; pods that are gone are forgotten.
"""

from __future__ import annotations

from tests.unit.carrel_operator.factories import NOW, gone, pod, running

from carrel_operator.isolation import Sight
from carrel_operator.readiness import Readiness

SEEN = Sight("connected", "timeout", "timeout", NOW)
OPEN = Sight("connected", "connected", "connected", NOW)


def test_a_host_is_ready_once_it_has_answered_in_the_container_that_runs():
    readiness = Readiness()
    assert not readiness.is_ready(pod(), isolation=False)
    readiness.note(pod(), None)
    assert readiness.is_ready(pod(), isolation=False)
    restarted = pod(status=running(container_id="containerd://two"))
    assert not readiness.is_ready(restarted, isolation=False)
    assert not readiness.is_ready(pod(uid="another"), isolation=False)
    assert not readiness.is_ready(pod(status={"phase": "Failed"}), isolation=False)
    assert not readiness.is_ready(pod(deletionTimestamp=gone()), isolation=False)


def test_where_isolation_is_wanted_only_a_pod_that_was_seen_isolated_is_ready():
    readiness = Readiness()
    for sight, ready in ((None, False), (OPEN, False), (SEEN, True)):
        readiness.note(pod(), sight)
        assert readiness.is_ready(pod(), isolation=True) is ready
        assert readiness.is_ready(pod(), isolation=False)


def test_the_latest_look_counts_and_is_that_of_one_container():
    readiness = Readiness()
    assert readiness.sight_of(pod()) is None
    readiness.note(pod(), OPEN)
    readiness.note(pod(), SEEN)
    assert readiness.sight_of(pod()) == SEEN
    assert readiness.sight_of(pod(status=running(container_id="containerd://two"))) is None


def test_it_is_known_who_is_being_looked_at():
    readiness = Readiness()
    with readiness.looking(pod()):
        assert readiness.is_looked_at(pod())
        assert not readiness.is_looked_at(pod(uid="another"))
    assert not readiness.is_looked_at(pod())


def test_one_claim_has_a_pod_at_a_time():
    readiness = Readiness()
    assert readiness.reserve(pod())
    assert not readiness.reserve(pod())
    assert readiness.reserve(pod(uid="another"))
    readiness.release(pod())
    assert readiness.reserve(pod())


def test_pods_that_are_gone_are_forgotten():
    readiness = Readiness()
    readiness.note(pod(), SEEN)
    readiness.note(pod(uid="another"), SEEN)
    readiness.keep_only({"another"})
    assert readiness.sight_of(pod()) is None
    assert readiness.sight_of(pod(uid="another")) == SEEN
