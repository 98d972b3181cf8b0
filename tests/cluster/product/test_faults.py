"""Parts of the product are killed while a session is at work; nothing acknowledged may be lost, nothing may run twice.

Plan: a cell appends one line to a file per step, so running twice would show; a chat is hit when its first cell has
begun. Victims: both gateways, both operators, the kernel pod. Afterwards the history has every acknowledged event once,
its numbers have no gap, the run of the chat has one end, and the session goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.cluster.product.desk import Desk, eventually
from tests.cluster.provider.base import Cluster
from tools.cluster import Access, Place

PLACE = Place()
STEPS = 20
SLOW = f"""
import time
for step in range({STEPS}):
    with open("steps.txt", "a") as file: file.write(f"{{step}}\\n")
    print(step, flush=True)
    time.sleep(0.3)
"""


def kill(cluster: Cluster, namespace: str, selector: str) -> None:
    """Kill pods at once, as a node that loses power does."""
    cluster.kubectl(
        "delete", "pod", f"--namespace={namespace}", f"--selector={selector}", "--grace-period=0", "--force"
    )


def replaced(cluster: Cluster, component: str) -> None:
    deployment = f"deployment/carrel-{component}"
    cluster.kubectl("rollout", "status", deployment, f"--namespace={PLACE.namespace}", "--timeout=120s")


def check_history(desk: Desk) -> dict[str, str]:
    """Return the outcome of each cell by its execution, after checking the log."""
    events = desk.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), "a gap, or a number twice"
    finished = [event["payload"] for event in events if event["type"] == "cell.finished"]
    outcomes = {payload["execution_id"]: payload["status"] for payload in finished}
    assert len(outcomes) == len(finished), "a cell finished twice"
    return outcomes


def ready(desk: Desk) -> None:
    """Wait until the session answers again."""

    def answers() -> bool:
        try:
            reply = desk.api.post(f"{desk.path}/kernel/execute", json={"code": "print('ready')"}, timeout=60)
        except httpx.HTTPError:
            return False
        return reply.status_code == 200 and reply.json()["status"] == "ok"

    eventually("the session answers", answers)


def in_background(desk: Desk, code: str) -> tuple[threading.Thread, list[Any]]:
    """Run a cell in a thread; its reply, or the error, is put into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(desk.api.post(f"{desk.path}/kernel/execute", json={"code": code}, timeout=120).json())
        except httpx.HTTPError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def steps_on_disk(desk: Desk) -> list[str]:
    return desk.stdout("print(open('steps.txt').read())").split()


@pytest.mark.parametrize("component", ["gateway", "operator"])
def test_killing_a_control_part_loses_nothing(
    cluster: Cluster, product: Access, open_desk: Callable[[], Desk], component: str
) -> None:
    desk = open_desk()
    assert desk.stdout("print('before')").strip() == "before"
    before = check_history(desk)
    thread, _ = in_background(desk, SLOW)
    eventually("the cell is running", desk.is_busy)
    kill(cluster, PLACE.namespace, f"app.kubernetes.io/component={component}")
    replaced(cluster, component)
    thread.join(120)
    ready(desk)
    assert steps_on_disk(desk) == [str(step) for step in range(STEPS)], "the cell ran once, to its end"
    after = check_history(desk)
    assert before.items() <= after.items()
    assert set(after.values()) == {"ok"}


def kill_kernel_pod(cluster: Cluster, desk: Desk) -> None:
    session = cluster.get("agentsession", desk.id, f"--namespace={PLACE.sessions}")
    name = session["status"]["podName"]
    cluster.kubectl("delete", "pod", name, f"--namespace={PLACE.sessions}", "--grace-period=0", "--force")


@pytest.mark.parametrize("victim", ["gateway", "operator", "kernel pod"])
def test_killing_a_part_in_the_middle_of_a_chat_loses_nothing(
    cluster: Cluster, product: Access, desk: Desk, victim: str
) -> None:
    table = "region,revenue\n" + "".join(f"r{row % 7},{row}\n" for row in range(200_000))
    stored = desk.api.post(f"{desk.path}/files", files={"file": ("big.csv", table, "text/csv")})
    assert stored.status_code == 201, stored.text
    thread = threading.Thread(target=ask, args=(desk, "average revenue by region"))
    thread.start()
    eventually("a cell of the run has begun", lambda: "cell.intended" in types(desk.events()))
    acknowledged = desk.events()
    if victim == "kernel pod":
        kill_kernel_pod(cluster, desk)
    else:
        kill(cluster, PLACE.namespace, f"app.kubernetes.io/component={victim}")
        replaced(cluster, victim)
    thread.join(180)
    eventually("the run has its end", lambda: "run.finished" in types(desk.events()), seconds=180)
    events = desk.events()
    assert events[: len(acknowledged)] == acknowledged
    check_history(desk)
    (end,) = (event["payload"] for event in events if event["type"] == "run.finished")
    assert end["status"] == "succeeded", end
    (answer,) = (event["payload"] for event in events if event["type"] == "message.assistant")
    assert f"{sum(range(6, 200_000, 7)) / len(range(6, 200_000, 7)):g}"[:5] in answer["content"].replace(",", "")
    intended = [event["payload"]["code"] for event in events if event["type"] == "cell.intended"]
    assert victim == "kernel pod" or len(intended) == len(set(intended)), "no cell was tried twice"
    ready(desk)


def ask(desk: Desk, question: str) -> None:
    """Ask in words; the connection may be lost on the way, the run may not."""
    with contextlib.suppress(httpx.HTTPError):
        desk.api.post(f"{desk.path}/chat", json={"message": question}, timeout=180)


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_killing_the_kernel_pod_ends_the_cell_with_a_reason(cluster: Cluster, desk: Desk) -> None:
    assert desk.stdout("kept = 1; print('before')").strip() == "before"
    before = check_history(desk)
    thread, outcome = in_background(desk, SLOW)
    eventually("the cell is running", desk.is_busy)
    kill_kernel_pod(cluster, desk)
    thread.join(120)
    ready(desk)
    after = check_history(desk)
    assert before.items() <= after.items()
    lost = {status for execution, status in after.items() if execution not in before} - {"ok"}
    assert lost <= {"kernel_died", "outcome_unknown"}
    assert lost, outcome
    assert desk.execute("kept")["status"] == "error", "the variables went with the pod, and nothing pretends otherwise"
