"""What a line of the operator's benchmarks counts. Pure.

Plan: quantiles are samples; of all writes only the operator's are its own, without leases and Events; of these the
session's and its pod's are for the session, and making a pod is so only where the pod was not there before.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.load import rows, scale
from tests.load.rows import Row, milliseconds, quantile, table
from tests.load.scale import Churn, Churned, Level
from tests.load.usage import Spent
from tests.support.audit import Write

NOW = datetime.now(UTC)


def write(user: str, verb: str, resource: str, name: str, namespace: str = "sessions") -> Write:
    return Write(user, verb, resource, namespace, name, 200, "192.0.2.1", NOW, NOW)


WRITES = [
    write("operator", "patch", "pods", "pod-1"),
    write("operator", "patch", "agentsessions/status", "s-1"),
    write("operator", "create", "pods", "pod-2"),
    write("operator", "patch", "sessionpools/status", "pool"),
    write("operator", "create", "events", "s-1.1"),
    write("operator", "update", "leases", "operator", "control"),
    write("scheduler", "create", "pods/binding", "pod-2"),
    write("scheduler", "create", "events", "pod-2.1"),
    write("client", "create", "agentsessions", "s-1"),
    write("scheduler", "create", "pods/binding", "foreign", "elsewhere"),
]


def row(*, made_before: bool) -> Row:
    spent = Spent(writes=list(WRITES), seconds=1.0)
    return Row("claim", samples=[0.01], spent=spent, operator="operator", client="client",
               own_objects={"s-1", "pod-1", "pod-2"}, made_before=made_before)  # fmt: skip


@pytest.mark.parametrize(("made_before", "alone"), [(True, 2), (False, 3)])
def test_writes_are_whose_they_are(made_before: bool, alone: int):
    found = row(made_before=made_before)
    assert len(found.own()) == 4
    assert len(found.own_for_sessions()) == alone
    assert len(found.everybody()) == 7


def test_a_line_says_what_it_counted():
    assert "| 2.0, 4.0 with the replacement (1.0) | 5.0 (2.0) |" in row(made_before=True).markdown()
    assert "| 4.0 (1.0) | 5.0 (2.0) |" in row(made_before=False).markdown()
    assert Row("none").markdown().count("| - ") == 8


def test_quantiles_are_samples():
    samples = [n / 100 for n in range(100, 0, -1)]
    assert [quantile(samples, share) for share in (0.5, 0.95, 0.99, 1.0)] == [0.5, 0.95, 0.99, 1.0]
    assert quantile([0.3], 0.99) == 0.3
    assert [milliseconds(0.0123), milliseconds(12.34)] == ["12 ms", "12.3 s"]


def test_every_line_has_the_cells_of_its_head():
    level = Level(20, pages=[0.1], lists=[0.2], recovery=3.0)
    level.churns = [Churned(Churn(rate, 2.0, pool=5), row(made_before=False), warm=1) for rate in (5.0, 45.0)]
    lines = level.markdown()
    assert [line.split(" | ")[4] for line in lines] == ["5/s / 1/s", "45/s / 1/s"]
    assert {line.count(" | ") + 1 for line in lines} == {len(scale.HEAD)}
    assert row(made_before=True).markdown().count(" | ") + 1 == len(rows.HEAD)


def test_a_table_is_markdown():
    assert table(["a", "b"], ["| 1 | 2 |"]) == "| a | b |\n|---|---|\n| 1 | 2 |"
