"""State that outlives its pod: a session is suspended, resumed and forked in real pods.

Plan: variables, files and a model of a session come back in another pod, and the first pod is gone in between; what
cannot come back is named; a fork has a pod of its own and goes its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cluster.product.desk import Desk, eventually
from tests.cluster.provider.base import Cluster
from tools.cluster import Place

PLACE = Place()
STATE = """
import socket
import numpy as np, pandas as pd
from sklearn.linear_model import LinearRegression
frame = pd.DataFrame({"x": np.arange(200_000.0), "y": 2 * np.arange(200_000.0) + 1})
model = LinearRegression().fit(frame[["x"]], frame["y"])
def predict(x): return round(float(model.predict(pd.DataFrame({"x": [x]}))[0]), 3)
lines = (line for line in "abc")
open("notes.txt", "w").write("noted")
print(socket.gethostname())
"""
LOOK = "import socket; print(predict(10), len(frame), open('notes.txt').read(), socket.gethostname())"


def pods(cluster: Cluster) -> set[str]:
    found = cluster.get("pods", f"--namespace={PLACE.sessions}")["items"]
    return {item["metadata"]["name"] for item in found if not item["metadata"].get("deletionTimestamp")}


def post(desk: Desk, what: str) -> dict[str, Any]:
    reply = desk.api.post(f"{desk.path}/{what}")
    assert reply.is_success, reply.text
    return reply.json()


def test_state_outlives_the_pod(cluster: Cluster, desk: Desk, open_desk: Callable[[], Desk]) -> None:
    desk.stdout(STATE)
    before = pods(cluster)
    suspended = post(desk, "suspend")
    assert {"frame", "model", "predict"} <= set(suspended["snapshot"]["variables"])
    assert suspended["snapshot"]["files"] == ["notes.txt"]
    assert [item["name"] for item in suspended["snapshot"]["not_saved"]] == ["lines"]
    eventually("the pod is gone", lambda: len(before - pods(cluster)) == 1)
    resumed = post(desk, "resume")
    assert [item["name"] for item in resumed["not_restored"]] == ["lines"]
    assert desk.stdout(LOOK).split()[:3] == ["21.0", "200000", "noted"]
    types = [event["type"] for event in desk.events()]
    assert types.count("session.suspended") == types.count("session.resumed") == 1
    assert not any(event["payload"].get("lost_state") for event in desk.events())
    post(desk, "suspend")
    assert desk.stdout(LOOK).split()[:3] == ["21.0", "200000", "noted"], "code that is run resumes"
    fork = Desk(desk.api, post(desk, "fork")["session"]["id"])
    try:
        assert fork.stdout(LOOK).split()[:3] == ["21.0", "200000", "noted"]
        assert fork.stdout(LOOK).split()[3] != desk.stdout(LOOK).split()[3], "each has a pod of its own"
        fork.stdout("frame = frame.head(5); open('notes.txt', 'w').write('other')")
        assert desk.stdout(LOOK).split()[:3] == ["21.0", "200000", "noted"]
    finally:
        fork.delete()
