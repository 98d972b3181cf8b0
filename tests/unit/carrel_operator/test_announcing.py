"""What people are told of a session, as Events: what befell it, once, and nothing of an ordinary start.

Plan: each change of status that is told, and those that are not; the Event as the API server wants it; one that
cannot be written is counted and hurts nobody; beyond a number at once they are left out.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.api_server import ApiServer, Connection
from tests.unit.carrel_operator.factories import NOW, SESSION_UID, ready_status, session, stamp

from carrel_api.session import AgentSessionStatus
from carrel_operator import announcing, metrics
from carrel_operator.announcing import Announcer, changes
from carrel_operator.cluster import Cluster
from carrel_operator.errors import ApiRefused
from carrel_operator.settings import Settings


def status(*said: tuple[str, str, str], **parts: Any) -> AgentSessionStatus:
    entries = [
        {"type": kind, "status": truth, "reason": reason, "message": f"why {reason}", "lastTransitionTime": stamp(NOW)}
        for kind, truth, reason in said
    ]
    return AgentSessionStatus.model_validate({"conditions": entries, **parts})


STARTING, BOUND = ("Ready", "False", "Starting"), ("Ready", "True", "Bound")
OOM = {"restarts": 1, "lastTermination": {"reason": "OOMKilled", "time": stamp(NOW)}}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (status(), status(STARTING), []),
        (status(STARTING), status(BOUND), []),
        (status(BOUND), status(("Ready", "False", "OOMKilled"), **OOM), [("Warning", "OOMKilled", "why OOMKilled")]),
        (status(STARTING, **OOM), status(BOUND, **OOM), []),
        (status(), status(("Ready", "False", "QuotaExceeded")), [("Warning", "QuotaExceeded", "why QuotaExceeded")]),
        (status(("Ready", "False", "QuotaExceeded")), status(("Ready", "False", "QuotaExceeded")), []),
        (
            status(("Ready", "False", "QuotaExceeded")),
            status(("Ready", "False", "Unschedulable")),
            [("Warning", "Unschedulable", "why Unschedulable")],
        ),
        (status(BOUND), status(("Suspended", "False", "Suspending")), []),
        (status(BOUND), status(("Suspended", "True", "Suspended")), [("Normal", "Suspended", "why Suspended")]),
        (status(("Suspended", "True", "Suspended")), status(("Suspended", "True", "Suspended")), []),
        (status(BOUND), status(("Finished", "True", "Idle")), [("Normal", "Idle", "why Idle")]),
        (
            status(BOUND),
            status(BOUND, ("SnapshotRequested", "True", "Suspending")),
            [("Normal", "SnapshotRequested", "why Suspending")],
        ),
        (status(("SnapshotRequested", "True", "Idle")), status(("SnapshotRequested", "False", "Active")), []),
    ],
)
def test_what_is_new_and_of_interest_is_told_once(
    before: AgentSessionStatus, after: AgentSessionStatus, told: list[tuple[str, str, str]]
):
    assert list(changes(before, after)) == told


def announcer(connection: Connection, tmp_path: Path) -> Announcer:
    settings = Settings(operator_private_key_file=tmp_path, gateway_public_key_file=tmp_path, pod_name="p" * 200)
    return Announcer(cast("Cluster", connection), settings)


def finished() -> Any:
    document = ready_status()
    document["conditions"][3] |= {"status": "True", "reason": "Idle", "message": "x" * 1024}
    return session(status=document)


async def written(made: Announcer) -> None:
    await asyncio.gather(*made._tasks)


def count(outcome: str) -> float:
    return metrics.EVENTS.labels(outcome=outcome)._value.get()


async def test_an_event_is_about_the_session_and_fits(tmp_path: Path):
    connection = Connection(ApiServer())
    made = announcer(connection, tmp_path)
    made.announce(finished(), AgentSessionStatus())
    await written(made)
    [event] = connection.server.all("Event")
    assert event["involvedObject"] == {
        "apiVersion": "carrel.dev/v1alpha1", "kind": "AgentSession", "name": "desk", "namespace": "carrel-sessions",
        "uid": SESSION_UID,
    }  # fmt: skip
    assert (event["type"], event["reason"], len(event["message"])) == ("Normal", "Idle", 1024)
    assert len(event["reportingInstance"]) == 128
    assert event["metadata"]["name"].startswith("desk.")


async def test_an_event_that_cannot_be_written_is_only_counted(tmp_path: Path):
    connection = Connection(ApiServer())
    connection.refuse["Event"] = ApiRefused("forbidden")
    made, before = announcer(connection, tmp_path), count("failed")
    made.announce(finished(), AgentSessionStatus())
    await written(made)
    assert count("failed") == before + 1


async def test_beyond_a_number_at_once_events_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(announcing, "MOST_AT_ONCE", 2)
    connection = Connection(ApiServer())
    made, before = announcer(connection, tmp_path), count("left_out")
    for _ in range(5):
        made.announce(finished(), AgentSessionStatus())
    await written(made)
    assert len(connection.server.all("Event")) == 2
    assert count("left_out") == before + 3
