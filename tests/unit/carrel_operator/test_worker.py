"""Passes of the worker against an API server and kernel hosts that are dictionaries: what real ones seldom do.

Plan: what is stored but not understood; names that others took; writes that lose a race; hosts that belong to others;
refusals; defaults among classes. The ordinary ways are walked on a real cluster in tests/cluster/operator.
"""

# ruff: noqa: ARG002 (stand-ins have the signatures of what they stand for)

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.api_server import ApiServer, Connection
from tests.unit.carrel_operator.factories import DIGEST, NOW, SESSION_UID, ready_status, running, session, stamp

from carrel_api import names
from carrel_operator.builders.identity import egress_policy_name
from carrel_operator.cluster import Cluster
from carrel_operator.context import Key, ProcessContext
from carrel_operator.errors import ApiConflict, ApiNotFound, ApiRefused, ApiUnavailable, HostRefused, HostUnreachable
from carrel_operator.handlers import watching
from carrel_operator.hosts import Hosts
from carrel_operator.keys import own_key
from carrel_operator.observed import PodView
from carrel_operator.queue import Again
from carrel_operator.settings import Settings
from carrel_operator.sight import Sight
from carrel_operator.sighting import Lookout, Target
from carrel_operator.store import KINDS
from carrel_operator.worker import Worker
from carrel_wire.host import BindReply, BindRequest, HostState
from carrel_wire.tokens import generate_private_key, public_key_of

KEY = Key("session", "carrel-sessions", "desk")
CLASS = {
    "kind": "SessionClass",
    "metadata": {"name": "standard", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"images": [{"name": "python", "reference": f"example.org/kernel@{DIGEST}"}]},
}


class HostsOf:
    """Kernel hosts that answer what the test says."""

    def __init__(self) -> None:
        self.answers: list[Exception | None] = []
        self.bound: list[BindRequest] = []
        self.last_activity = 0.0
        self.session_uid: str | None = SESSION_UID

    async def bind(self, endpoint: str, request: BindRequest) -> BindReply:
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        self.bound.append(request)
        return BindReply(host_id=request.pod_uid, boot_id="b", session_uid=request.session_uid, already=False)

    async def state(self, endpoint: str, pod_uid: str) -> HostState:
        return HostState(
            host_id=pod_uid, boot_id="b", session_uid=self.session_uid, kernels=[], last_activity=self.last_activity,
            busy=False, connections=0, disk_used_bytes=0, unacknowledged=[],
        )  # fmt: skip


class Stage:
    """A worker and what is around it; the watch brings every change at once."""

    def __init__(self, folder: Path, lookout: type[Lookout] | None = None) -> None:
        (folder / "key").write_text(generate_private_key())
        (folder / "pub").write_text(public_key_of(generate_private_key()))
        settings = Settings(
            operator_private_key_file=folder / "key",
            gateway_public_key_file=folder / "pub",
            pod_ip="192.0.2.1" if lookout else "",
        )
        self.server, self.hosts = ApiServer(), HostsOf()
        self.api = Connection(self.server)
        hosts = cast("Hosts", self.hosts)
        self.context = ProcessContext(settings, cast("Cluster", self.api), hosts, own_key(settings))
        self.worker = Worker(self.context, (lookout or Lookout)(hosts, settings.pod_ip, 0))
        self.server.listeners.append(self._heard)
        self.server.put(copy.deepcopy(CLASS))

    def _heard(self, event: str, kind: str, document: dict[str, Any]) -> None:
        if kind in KINDS:
            watching.take(self.context, kind, cast("Any", {"type": event, "object": document}))

    def session(self, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> None:
        self.server.put(session(spec, status).dump())

    async def look(self) -> Again:
        return await self.worker.handle(KEY)

    def drain(self) -> None:
        """Forget which keys wait."""
        while self.context.queue._next_group() is not None:
            self.context.queue._done(self.context.queue._take())

    def said(self, kind: str = "Ready") -> dict[str, Any]:
        found = self.server.get("AgentSession", "desk").get("status", {}).get("conditions", [])
        return next((condition for condition in found if condition["type"] == kind), {})

    def allow_egress(self, egress: list[dict[str, Any]]) -> None:
        self.server.change("SessionClass", "standard", lambda document: document["spec"].update(egress=egress))

    def policy(self, name: str) -> dict[str, Any] | None:
        return self.server.find("NetworkPolicy", name, "carrel-sessions")

    def pod(self) -> dict[str, Any]:
        [pod] = self.server.all("Pod")
        return pod

    def pod_runs(self) -> None:
        def run(pod: dict[str, Any]) -> None:
            pod["spec"]["nodeName"], pod["status"] = "node-1", running()

        self.server.change("Pod", self.pod()["metadata"]["name"], run)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_session_that_is_gone_is_forgotten(stage: Stage):
    assert await stage.look() == Again()
    assert stage.api.written == []


async def test_policies_and_keys_come_before_the_pod_and_one_status_write_after_it(stage: Stage):
    stage.session()
    await stage.look()
    assert stage.api.written == ["NetworkPolicy", "NetworkPolicy", "ConfigMap", "Pod", "AgentSession/status"]


async def test_a_running_pod_is_bound_once_and_said_ready(stage: Stage):
    stage.session()
    await stage.look()
    stage.pod_runs()
    await stage.look()
    assert stage.said()["reason"] == "Bound"
    written = len(stage.api.written)
    await stage.look()
    assert (len(stage.hosts.bound), len(stage.api.written)) == (1, written)


async def test_isolation_is_looked_at_beside_the_start_and_told_when_it_was_seen(tmp_path: Path):
    class Slow(Lookout):
        async def look(self, target: Target, *, unbound: bool) -> Sight:
            asked.append(unbound)
            await ended.wait()
            return Sight("connected", "timeout", "timeout", datetime.now(UTC))

    asked: list[bool] = []
    ended = asyncio.Event()
    stage = Stage(tmp_path, Slow)
    stage.hosts.session_uid = None
    stage.session()
    await stage.look()
    stage.pod_runs()
    await stage.look()
    assert (stage.said()["reason"], stage.said("Isolated")["reason"]) == ("Bound", "NotSeen")
    await stage.look()
    assert asked == [True], "one look at a time"
    stage.drain()
    written = len(stage.api.written)
    ended.set()
    await asyncio.sleep(0.01)
    assert stage.context.queue._next_group() is not None, "the end of the look has it told"
    await stage.look()
    assert stage.said("Isolated")["status"] == "True"
    assert len(stage.api.written) == written + 1


async def test_egress_is_opened_and_closed_as_the_session_says(stage: Stage):
    egress = [{"cidr": "203.0.113.0/24", "ports": [443]}]
    stage.allow_egress(egress)
    stage.session({"network": {"egress": egress}})
    await stage.look()
    policies = {document["metadata"]["name"] for document in stage.server.all("NetworkPolicy")}
    assert policies == {"carrel-kernel-deny-all", "carrel-kernel-port", egress_policy_name(session())}
    stage.session()
    await stage.look()
    assert stage.policy(egress_policy_name(session())) is None


@pytest.mark.parametrize(
    ("ceilings", "reason"), [(["0.0.0.0/0"], "EgressAboveClass"), (["0.0.0.0/0", "10.1.0.0/16"], "Starting")]
)
async def test_a_private_range_is_open_only_where_the_class_names_it(stage: Stage, ceilings: list[str], reason: str):
    allowed = [{"cidr": cidr, "ports": [443]} for cidr in ceilings]
    stage.allow_egress(allowed)
    stage.session({"network": {"egress": [{"cidr": "10.1.2.0/24", "ports": [443]}]}})
    await stage.look()
    assert stage.said()["reason"] == reason
    assert (stage.policy(egress_policy_name(session())) is not None) is (reason == "Starting")


async def test_everything_does_not_open_the_cluster(stage: Stage):
    everything = [{"cidr": "0.0.0.0/0", "ports": [443]}]
    stage.allow_egress(everything)
    stage.session({"network": {"egress": everything}})
    await stage.look()
    policy = stage.server.get("NetworkPolicy", egress_policy_name(session()))
    excepted = policy["spec"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"} <= set(excepted)


async def test_an_object_that_is_not_understood_is_told_once(stage: Stage):
    document = session().dump()
    document["spec"]["operatingMode"] = "Hibernating"
    stage.server.put(document)
    await stage.look()
    await stage.look()
    assert stage.said()["reason"] == "InvalidSpec"
    assert stage.said()["message"].startswith("spec.operatingMode: Input should be 'Running' or 'Suspended'")
    assert stage.api.written == ["AgentSession/status"]


async def test_a_class_that_is_not_understood_counts_as_missing(stage: Stage):
    stage.server.put({"kind": "SessionClass", "metadata": {"name": "standard"}, "spec": {"images": []}})
    stage.session()
    await stage.look()
    assert stage.said()["reason"] == "ClassNotFound"


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({"a": ("true", 1), "b": ("true", 2), "c": ("false", 3)}, "b"),
        ({"c": ("false", 3)}, None),
    ],
)
async def test_the_newest_default_class_is_taken(
    stage: Stage, classes: dict[str, tuple[str, int]], expected: str | None
):
    for name, (default, day) in classes.items():
        metadata = {
            "name": name,
            "creationTimestamp": f"2026-01-0{day}T00:00:00Z",
            "annotations": {"carrel.dev/is-default-class": default},
        }
        stage.server.put({**copy.deepcopy(CLASS), "metadata": metadata})
    stage.session({"className": ""})
    await stage.look()
    assert stage.server.get("AgentSession", "desk")["status"].get("className") == expected
    assert stage.said()["reason"] == ("Starting" if expected else "ClassNotFound")


async def test_a_default_class_is_resolved_once(stage: Stage):
    stage.session({"className": ""}, {"className": "standard"})
    await stage.look()
    assert stage.server.get("AgentSession", "desk")["status"]["className"] == "standard"


async def test_a_pod_of_somebody_else_under_the_name_is_neither_used_nor_touched(stage: Stage):
    stage.session()
    await stage.look()
    stage.pod_runs()

    def take_over(pod: dict[str, Any]) -> None:
        pod["metadata"]["ownerReferences"][0]["uid"] = "another"

    stage.server.change("Pod", stage.pod()["metadata"]["name"], take_over)
    stage.session()
    again = await stage.look()
    assert again.retry
    assert stage.said()["reason"] == "PodRefused"
    assert "must be free for this session; delete the pod that has it" in stage.said()["message"]
    assert stage.hosts.bound == []
    assert "delete Pod" not in stage.api.written


@pytest.mark.parametrize(
    ("write", "error", "reason"),
    [
        ("Pod", ApiRefused("pods is forbidden: exceeded quota: desk"), "QuotaExceeded"),
        ("Pod", ApiRefused("pods is forbidden: violates PodSecurity"), "PodRefused"),
        ("PersistentVolumeClaim", ApiRefused("exceeded quota: storage"), "QuotaExceeded"),
        ("NetworkPolicy", ApiRefused("forbidden"), "PodRefused"),
    ],
)
async def test_a_refusal_is_told_and_tried_again(stage: Stage, write: str, error: Exception, reason: str):
    stage.session({"workspace": {"type": "Persistent"}})
    stage.api.refuse[write] = error
    assert (await stage.look()).retry
    assert stage.said()["reason"] == reason
    assert not (await stage.look()).retry
    assert stage.said()["reason"] == "Starting"


async def test_an_api_server_that_is_away_says_nothing_and_is_asked_again(stage: Stage):
    stage.session()
    stage.api.refuse["Pod"] = ApiUnavailable("away")
    with pytest.raises(ApiUnavailable):
        await stage.look()
    assert stage.said() == {}


@pytest.mark.parametrize(("error", "retry"), [(ApiConflict("changed"), True), (ApiNotFound("gone"), False)])
async def test_a_status_write_that_loses_a_race_is_decided_anew(stage: Stage, error: Exception, retry: bool):
    stage.session()
    stage.api.refuse["AgentSession/status"] = error
    assert (await stage.look()).retry is retry


async def test_a_pod_that_vanishes_while_it_is_made_is_decided_anew(stage: Stage):
    stage.session()
    stage.api.refuse["Pod"] = ApiConflict("exists")
    with pytest.raises(ApiConflict):
        await stage.look()


async def test_a_host_of_another_session_is_replaced(stage: Stage):
    stage.session()
    await stage.look()
    stage.pod_runs()
    stage.hosts.answers = [HostRefused("already_bound", "of another session")]
    await stage.look()
    assert "delete Pod" in stage.api.written


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (HostUnreachable("the kernel host does not answer"), Again(after=0.25)),
        (HostRefused("unauthenticated", "token is signed by an unknown key"), Again(retry=True)),
    ],
)
async def test_a_host_that_cannot_be_bound_yet_is_tried_again(stage: Stage, answer: Exception, again: Again):
    stage.session()
    await stage.look()
    stage.pod_runs()
    stage.hosts.answers = [answer]
    assert await stage.look() == again
    assert stage.said()["reason"] == "Starting"
    await stage.look()
    assert stage.said()["reason"] == "Bound"


@pytest.mark.parametrize("told", [0.0, 1e300, float("nan"), -1e20])
async def test_what_a_host_says_of_its_activity_cannot_hurt(stage: Stage, told: float):
    stage.session({"idleTimeoutSeconds": 60})
    await stage.look()
    stage.pod_runs()
    status = ready_status(podUID=stage.pod()["metadata"]["uid"], startTime=stamp(NOW.replace(year=2020)))
    stage.session({"idleTimeoutSeconds": 60}, status)
    stage.hosts.last_activity = told
    await stage.look()
    finished = json.dumps(stage.server.get("AgentSession", "desk")["status"])
    assert ('"Idle"' in finished) is (told == 0.0)


async def test_a_session_whose_time_has_come_is_deleted(stage: Stage):
    stage.session({"shutdownTime": "2020-01-01T00:00:00Z", "shutdownPolicy": "Delete"})
    assert await stage.look() == Again()
    assert stage.server.all("AgentSession") == []
    assert stage.api.written == ["delete AgentSession"]


async def test_a_changed_class_wakes_its_sessions_and_those_that_wait(stage: Stage):
    stage.session(status=ready_status())
    other = session(status=ready_status(className="other"), name="other").dump()
    lost = session(status={}, name="lost").dump()
    stage.server.put(other)
    stage.server.put(lost)
    stage.drain()
    await stage.worker.handle(Key("class", name="standard"))
    assert sorted(key.name for key in stage.context.queue._since) == ["desk", "lost"]


async def test_a_namespace_is_put_right_again_and_again(stage: Stage):
    again = await stage.worker.handle(Key("namespace", "carrel-sessions"))
    assert again.after == stage.context.settings.resync_seconds
    assert stage.api.written == ["NetworkPolicy", "NetworkPolicy", "ConfigMap"]


async def pooled(stage: Stage) -> str:
    """Have a pool with one pod that is ready; return the pod's name."""
    pool = {"kind": "SessionPool", "metadata": {"name": "warm", "namespace": "carrel-sessions"}}
    stage.server.put({"apiVersion": "carrel.dev/v1alpha1", **pool, "spec": {"className": "standard", "replicas": 1}})
    await stage.worker.handle(Key("pool", "carrel-sessions", "warm"))
    stage.pod_runs()
    pod = PodView.of(stage.pod())
    stage.context.readiness.note(pod, None)
    return pod.name


async def test_a_pod_that_only_the_kubelet_wrote_to_is_claimed_all_the_same(stage: Stage):
    name = await pooled(stage)
    stage.server.listeners.clear()  # the watch is late
    stage.server.change("Pod", name, lambda pod: pod["status"].update(qosClass="Burstable"))
    stage.server.listeners.append(stage._heard)
    stage.session()
    await stage.look()
    assert stage.said()["reason"] == "Bound"
    status = stage.server.get("AgentSession", "desk")["status"]
    assert (status["podName"], status["pool"]) == (name, "warm")


async def test_a_pod_whose_kernel_host_is_another_by_now_is_left_alone(stage: Stage):
    name = await pooled(stage)
    stage.server.listeners.clear()

    def restart(pod: dict[str, Any]) -> None:
        pod["status"] = running(container_id="containerd://two")

    stage.server.change("Pod", name, restart)
    stage.server.listeners.append(stage._heard)
    stage.session()
    await stage.look()
    status = stage.server.get("AgentSession", "desk")["status"]
    assert status["podName"] != name
    assert status["coldStartReason"] == "started cold: other sessions were faster"
    assert stage.hosts.bound == []


async def test_why_a_session_started_cold_is_known_though_its_status_could_not_be_written(stage: Stage):
    """By the next pass the pod is there, and nobody looks for one in a pool any more."""
    name = await pooled(stage)
    stage.server.change("Pod", name, lambda pod: pod["metadata"]["labels"].update({names.REVISION_LABEL: "another"}))
    stage.session()
    stage.api.refuse["AgentSession/status"] = ApiUnavailable("away")
    with pytest.raises(ApiUnavailable):
        await stage.look()
    await stage.look()
    status = stage.server.get("AgentSession", "desk")["status"]
    assert status["podName"] != name
    assert status["coldStartReason"] == "started cold: pods of warm have another image or other resources"
