"""The benchmarks of the operator, short: that they run, and that a claim costs as few writes as it should.

Plan: on nodes that are not real, all sections run with a few sessions, and every line of the page has what it promises;
times are looked at by people. Writes are no times: a claim costs the operator three at most, six with the replacement.
On the real node a session is started cold and claimed, and a cell runs in the first.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.cluster.provider.base import Cluster
from tests.load import operator_bench
from tests.load.operator_bench import SHORT, Results
from tests.support import fake_nodes
from tools.images import Image

pytestmark = pytest.mark.skipif(fake_nodes.missing() is not None, reason=fake_nodes.missing() or "")


@pytest.fixture(scope="module")
def measured(cluster: Cluster, image: Callable[[str], Image]) -> Results:
    return operator_bench.measure(cluster, image("kernel").tag, SHORT)


def test_every_section_has_its_lines(measured: Results):
    works = [row.work.partition(",")[0] for row in measured.rows]
    assert works.count("claim from a warm pool") == 3
    assert works.count("bare writes of a claim") == 2
    assert works.count("cold start: create → Ready") == 2
    assert works.count("cold start: Ready → first reply of `1+1`") == 1
    assert all(row.samples and min(row.samples) > 0 for row in measured.rows)
    page = operator_bench.page(measured)
    assert all(row.markdown() in page for row in measured.rows)


def test_churn_reaches_ready_and_the_operator_comes_back(measured: Results):
    [level] = measured.levels
    [churned], [churn] = level.churns, SHORT.churns
    assert len(churned.row.samples) == churn.rate * churn.seconds
    assert churned.late == 0
    assert churned.resident > 0
    assert level.recovery > 0
    assert level.markdown()[0] in operator_bench.page(measured)


def test_no_pod_is_looked_at_twice(measured: Results):
    assert 0 < measured.looks <= measured.pods, "a claim must not wait for what was seen while the pod was the pool's"


def test_a_claim_costs_the_operator_three_writes_and_six_with_the_replacement(cluster: Cluster, measured: Results):
    if cluster.audit_log() is None:
        pytest.skip(f"{cluster.name} keeps no audit log that tests can read")
    claims = [row for row in measured.rows if row.made_before]
    assert len(claims) == 3
    for row in claims:
        assert 2 <= len(row.own_for_sessions()) / len(row.samples) <= 3, row.own_for_sessions()
        assert 3 <= len(row.own()) / len(row.samples) <= 6, row.own()
        assert all(write.accepted for write in row.own())
