"""Passes of the worker against an API server and kernel hosts that are dictionaries: what real ones seldom do.

Plan: what is stored but not understood; names that others took; writes that lose a race; hosts that belong to others;
refusals; defaults among classes. The ordinary ways are walked on a real cluster in tests/cluster/operator.
"""

# ruff: noqa: ARG002 (stand-ins have the signatures of what they stand for)

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.carrel_operator.factories import DIGEST, NOW, ready_status, running, session, stamp

from carrel_operator.builders.identity import egress_policy_name
from carrel_operator.cluster import Cluster
from carrel_operator.context import Key, ProcessContext
from carrel_operator.errors import ApiConflict, ApiNotFound, ApiRefused, ApiUnavailable, HostRefused, HostUnreachable
from carrel_operator.hosts import Hosts
from carrel_operator.keys import own_key
from carrel_operator.queue import Again
from carrel_operator.settings import Settings
from carrel_operator.worker import Worker
from carrel_wire.host import BindReply, BindRequest, HostState
from carrel_wire.tokens import generate_private_key, public_key_of

KEY = Key("session", "carrel-sessions", "desk")
CLASS = {
    "metadata": {"name": "standard", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"images": [{"name": "python", "reference": f"example.org/kernel@{DIGEST}"}]},
}


class Stored:
    """An API server: objects by kind and name. It judges nothing."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.refuse: dict[str, Exception] = {}
        """What the next write of a kind raises."""
        self.written: list[str] = []

    def put(self, kind: str, document: dict[str, Any]) -> None:
        self.objects[kind, document["metadata"]["name"]] = document

    async def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    async def items(self, kind: str, namespace: str | None = None) -> AsyncIterator[dict[str, Any]]:
        for (found, _), document in list(self.objects.items()):
            if found == kind:
                yield copy.deepcopy(document)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._judge(kind)
        if (kind, name) in self.objects:
            raise ApiConflict("exists")
        document = copy.deepcopy(manifest)
        document["metadata"]["uid"] = f"uid-{len(self.written)}"
        self.put(kind, document)
        return document

    async def apply(self, manifest: dict[str, Any], *, subresource: str | None = None) -> dict[str, Any]:
        kind = manifest["kind"]
        self._judge(f"{kind}/{subresource}" if subresource else kind)
        found = self.objects.setdefault((kind, manifest["metadata"]["name"]), {"metadata": manifest["metadata"]})
        found.update({key: value for key, value in manifest.items() if key != "metadata"})
        return found

    async def delete(self, kind: str, name: str, namespace: str, **options: Any) -> None:
        self._judge(f"delete {kind}")
        self.objects.pop((kind, name), None)

    def _judge(self, write: str) -> None:
        self.written.append(write)
        if write in self.refuse:
            raise self.refuse.pop(write)


class HostsOf:
    """Kernel hosts that answer what the test says."""

    def __init__(self) -> None:
        self.answers: list[Exception | None] = []
        self.bound: list[BindRequest] = []
        self.last_activity = 0.0

    async def bind(self, endpoint: str, request: BindRequest) -> BindReply:
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        self.bound.append(request)
        return BindReply(host_id=request.pod_uid, boot_id="b", session_uid=request.session_uid, already=False)

    async def state(self, endpoint: str, pod_uid: str) -> HostState:
        return HostState(
            host_id=pod_uid, boot_id="b", session_uid="s", kernels=[], last_activity=self.last_activity, busy=False,
            connections=0, disk_used_bytes=0, unacknowledged=[],
        )  # fmt: skip


class Stage:
    """A worker and what is around it."""

    def __init__(self, folder: Path) -> None:
        (folder / "key").write_text(generate_private_key())
        (folder / "pub").write_text(public_key_of(generate_private_key()))
        settings = Settings(operator_private_key_file=folder / "key", gateway_public_key_file=folder / "pub")
        self.api, self.hosts = Stored(), HostsOf()
        self.context = ProcessContext(settings, cast("Cluster", self.api), cast("Hosts", self.hosts), own_key(settings))
        self.worker = Worker(self.context)
        self.api.put("SessionClass", copy.deepcopy(CLASS))

    def session(self, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> None:
        self.api.put("AgentSession", session(spec, status).dump())

    async def look(self) -> Again:
        return await self.worker.handle(KEY)

    def said(self) -> dict[str, Any]:
        found = self.api.objects["AgentSession", "desk"].get("status", {}).get("conditions", [])
        return next((condition for condition in found if condition["type"] == "Ready"), {})

    def pod(self) -> dict[str, Any]:
        [pod] = [document for (kind, _), document in self.api.objects.items() if kind == "Pod"]
        return pod


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
    stage.pod()["status"] = running()
    await stage.look()
    assert stage.said()["reason"] == "Bound"
    written = len(stage.api.written)
    await stage.look()
    assert (len(stage.hosts.bound), len(stage.api.written)) == (1, written)


async def test_egress_is_opened_and_closed_as_the_session_says(stage: Stage):
    egress = [{"cidr": "203.0.113.0/24", "ports": [443]}]
    stage.api.objects["SessionClass", "standard"]["spec"]["egress"] = egress
    stage.session({"network": {"egress": egress}})
    await stage.look()
    policies = {name for kind, name in stage.api.objects if kind == "NetworkPolicy"}
    assert policies == {"carrel-kernel-deny-all", "carrel-kernel-port", egress_policy_name(session())}
    stage.session()
    await stage.look()
    assert ("NetworkPolicy", egress_policy_name(session())) not in stage.api.objects


@pytest.mark.parametrize(
    ("ceilings", "reason"), [(["0.0.0.0/0"], "EgressAboveClass"), (["0.0.0.0/0", "10.1.0.0/16"], "Starting")]
)
async def test_a_private_range_is_open_only_where_the_class_names_it(stage: Stage, ceilings: list[str], reason: str):
    allowed = [{"cidr": cidr, "ports": [443]} for cidr in ceilings]
    stage.api.objects["SessionClass", "standard"]["spec"]["egress"] = allowed
    stage.session({"network": {"egress": [{"cidr": "10.1.2.0/24", "ports": [443]}]}})
    await stage.look()
    assert stage.said()["reason"] == reason
    assert (("NetworkPolicy", egress_policy_name(session())) in stage.api.objects) is (reason == "Starting")


async def test_everything_does_not_open_the_cluster(stage: Stage):
    everything = [{"cidr": "0.0.0.0/0", "ports": [443]}]
    stage.api.objects["SessionClass", "standard"]["spec"]["egress"] = everything
    stage.session({"network": {"egress": everything}})
    await stage.look()
    policy = stage.api.objects["NetworkPolicy", egress_policy_name(session())]
    excepted = policy["spec"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"} <= set(excepted)


async def test_an_object_that_is_not_understood_is_told_once(stage: Stage):
    document = session().dump()
    document["spec"]["operatingMode"] = "Hibernating"
    stage.api.put("AgentSession", document)
    await stage.look()
    await stage.look()
    assert stage.said()["reason"] == "InvalidSpec"
    assert stage.said()["message"].startswith("spec.operatingMode: Input should be 'Running' or 'Suspended'")
    assert stage.api.written == ["AgentSession/status"]


async def test_a_class_that_is_not_understood_counts_as_missing(stage: Stage):
    stage.api.put("SessionClass", {"metadata": {"name": "standard"}, "spec": {"images": []}})
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
        stage.api.put("SessionClass", {**copy.deepcopy(CLASS), "metadata": metadata})
    stage.session({"className": ""})
    await stage.look()
    assert stage.api.objects["AgentSession", "desk"]["status"].get("className") == expected
    assert stage.said()["reason"] == ("Starting" if expected else "ClassNotFound")


async def test_a_default_class_is_resolved_once(stage: Stage):
    stage.session({"className": ""}, {"className": "standard"})
    await stage.look()
    assert stage.api.objects["AgentSession", "desk"]["status"]["className"] == "standard"


async def test_a_pod_of_somebody_else_under_the_name_is_neither_used_nor_touched(stage: Stage):
    stage.session()
    await stage.look()
    pod = stage.pod()
    pod["metadata"]["ownerReferences"][0]["uid"] = "another"
    pod["status"] = running()
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
    stage.pod()["status"] = running()
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
    stage.pod()["status"] = running()
    stage.hosts.answers = [answer]
    assert await stage.look() == again
    assert stage.said()["reason"] == "Starting"
    await stage.look()
    assert stage.said()["reason"] == "Bound"


@pytest.mark.parametrize("told", [0.0, 1e300, float("nan"), -1e20])
async def test_what_a_host_says_of_its_activity_cannot_hurt(stage: Stage, told: float):
    stage.session({"idleTimeoutSeconds": 60})
    await stage.look()
    pod = stage.pod()
    pod["status"] = running()
    document = stage.api.objects["AgentSession", "desk"]
    document["status"] = ready_status(podUID=pod["metadata"]["uid"], startTime=stamp(NOW.replace(year=2020)))
    stage.hosts.last_activity = told
    await stage.look()
    finished = json.dumps(stage.api.objects["AgentSession", "desk"]["status"])
    assert ('"Idle"' in finished) is (told == 0.0)


async def test_a_session_whose_time_has_come_is_deleted(stage: Stage):
    stage.session({"shutdownTime": "2020-01-01T00:00:00Z", "shutdownPolicy": "Delete"})
    assert await stage.look() == Again()
    assert ("AgentSession", "desk") not in stage.api.objects
    assert stage.api.written == ["delete AgentSession"]


async def test_a_changed_class_wakes_its_sessions_and_those_that_wait(stage: Stage):
    stage.session(status=ready_status())
    other = session(status=ready_status(className="other"), name="other").dump()
    lost = session(status={}, name="lost").dump()
    stage.api.put("AgentSession", other)
    stage.api.put("AgentSession", lost)
    await stage.worker.handle(Key("class", name="standard"))
    assert sorted(key.name for key in stage.context.queue._since) == ["desk", "lost"]


async def test_a_namespace_is_put_right_again_and_again(stage: Stage):
    again = await stage.worker.handle(Key("namespace", "carrel-sessions"))
    assert again.after == stage.context.settings.resync_seconds
    assert stage.api.written == ["NetworkPolicy", "NetworkPolicy", "ConfigMap"]
