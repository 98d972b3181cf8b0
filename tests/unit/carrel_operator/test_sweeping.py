"""What the watch missed is found by reading all, and pods that belong to nobody go; what others have made stays.

Plan: ghosts and news wake whom they concern; orphans by age, owner and label; each kind of object has its keys, by
watch too; sessions of a tenant take turns as one group.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from tests.support.api_server import ApiServer, Connection, stamp
from tests.support.world import process_parts
from tests.unit.carrel_operator.factories import session, session_class

from carrel_operator.builders.identity import egress_policy_of, hash_of
from carrel_operator.cluster import Cluster
from carrel_operator.context import Key, ProcessContext
from carrel_operator.handlers import watching
from carrel_operator.hosts import Hosts
from carrel_operator.isolation import Sight
from carrel_operator.sweeping import ORPHAN_AGE, Sweeper, read_all

NS = "carrel-sessions"
KERNEL = {"carrel.dev/component": "kernel", "app.kubernetes.io/managed-by": "carrel-operator"}


@pytest.fixture
def context() -> ProcessContext:
    settings, own = process_parts()
    return ProcessContext(settings, cast("Cluster", Connection(ApiServer())), cast("Hosts", None), own)


def server_of(context: ProcessContext) -> ApiServer:
    return cast("Connection", context.cluster).server


def woken(context: ProcessContext) -> list[str]:
    return sorted(str(key) for key in context.queue._since)


def pod_of(name: str, *, owner: tuple[str, str, str] | None, age: float = 3600, labels: Any = KERNEL) -> dict[str, Any]:
    owners = [] if owner is None else [dict(zip(("kind", "name", "uid"), owner, strict=True)) | {"controller": True}]
    made = stamp(datetime.now(UTC) - timedelta(seconds=age))
    metadata = {
        "name": name, "namespace": NS, "labels": labels, "ownerReferences": owners, "creationTimestamp": made,
    }  # fmt: skip
    return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Running"}}


async def test_pods_that_belong_to_nobody_go_and_others_stay(context: ProcessContext):
    server = server_of(context)
    server.put(session().dump())
    uid = session().metadata.uid
    young = ORPHAN_AGE.total_seconds() / 2
    for pod in (
        pod_of("of-a-session", owner=("AgentSession", "desk", uid)),
        pod_of("of-an-earlier-session", owner=("AgentSession", "desk", "earlier")),
        pod_of("of-a-lost-pool", owner=("SessionPool", "warm", "pool")),
        pod_of("of-nobody", owner=None),
        pod_of("of-nobody-yet", owner=None, age=young),
        pod_of("of-a-session-not-seen-yet", owner=("AgentSession", "new", "new"), age=young),
        pod_of("of-another-controller", owner=("ReplicaSet", "r", "r")),
        pod_of("of-people", owner=None, labels={"carrel.dev/component": "kernel"}),
    ):
        server.put(pod)
    await Sweeper(context).sweep(NS)
    assert {pod["metadata"]["name"] for pod in server.all("Pod")} == {
        "of-a-session", "of-nobody-yet", "of-a-session-not-seen-yet", "of-another-controller", "of-people",
    }  # fmt: skip


async def test_a_ghost_wakes_whom_it_concerns_and_is_forgotten(context: ProcessContext):
    ghost = pod_of("ghost", owner=("AgentSession", "desk", "uid"))
    ghost["metadata"] |= {"uid": "ghost", "resourceVersion": "1"}
    context.store.heard("Pod", ghost)
    context.readiness.note(
        context.store.find("Pod", NS, "ghost"), Sight("connected", "timeout", "timeout", datetime.now(UTC))
    )
    await Sweeper(context).sweep(NS)
    assert context.store.names("Pod") == []
    assert woken(context) == [f"session/{NS}/desk"]
    assert context.readiness._seen == {}


async def test_what_has_just_been_read_is_not_read_again_for_the_first_sweep(context: ProcessContext):
    sweeper = Sweeper(context, read=[NS])
    server_of(context).put(session().dump())
    await sweeper.sweep(NS)
    assert context.store.names("AgentSession") == []
    await sweeper.sweep(NS)
    assert context.store.names("AgentSession") == [(NS, "desk")]


async def test_reading_all_wakes_only_for_what_is_new(context: ProcessContext):
    server_of(context).put(session().dump())
    server_of(context).put({**session_class().dump(), "kind": "SessionClass"})
    await read_all(context, NS)
    assert woken(context) == ["class/standard", f"session/{NS}/desk"]
    context.queue._since.clear()
    await read_all(context, NS)
    assert woken(context) == []


def heard(
    context: ProcessContext, kind: str, name: str, event: str = "MODIFIED", spec: Any = None, **more: Any
) -> list[str]:
    """Return the keys that one event adds."""
    context.queue._since.clear()
    metadata = {"name": name, "uid": more.pop("uid", name), "resourceVersion": more.pop("version", "5")}
    if kind != "SessionClass":
        metadata["namespace"] = NS
    document = {"metadata": {**metadata, **more}, "spec": spec or {}}
    watching.take(context, kind, cast("Any", {"type": event, "object": document}))
    return woken(context)


def owned(kind: str, name: str, uid: str = "owner") -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "uid": uid, "controller": True}]}


def test_each_kind_of_object_wakes_whom_it_concerns(context: ProcessContext):
    assert heard(context, "AgentSession", "desk") == [f"session/{NS}/desk"]
    assert heard(context, "SessionPool", "warm", uid="pool") == [f"pool/{NS}/warm"]
    assert heard(context, "SessionClass", "standard") == []  # it cannot be understood, and nobody is to use it
    assert heard(context, "Pod", "of-nobody") == []
    assert heard(context, "Pod", "p", **owned("ReplicaSet", "r")) == []
    assert heard(context, "Pod", "q", **owned("AgentSession", "desk")) == [f"session/{NS}/desk"]
    labels = {"labels": {"carrel.dev/claimed-from": hash_of("pool")}}
    assert heard(context, "Pod", "c", **owned("AgentSession", "desk"), **labels) == [f"session/{NS}/desk"]
    assert list(context.queue._due) == [Key("pool", NS, "warm")]  # a moment later: who waits for a pod is first
    labels = {"labels": {"carrel.dev/pool": hash_of("pool")}}
    assert heard(context, "Pod", "w", **owned("SessionPool", "warm", "pool"), **labels) == [f"pool/{NS}/warm"]
    assert heard(context, "Pod", "w", "DELETED", version="6", uid="w") == [f"pool/{NS}/warm"]


def test_policies_wake_their_session_all_of_the_namespace_or_the_namespace_itself(context: ProcessContext):
    heard(context, "AgentSession", "a")
    heard(context, "AgentSession", "b")
    own = egress_policy_of("a", "owner")
    spec = {"podSelector": {"matchLabels": {"carrel.dev/session": hash_of("owner")}}}
    assert heard(context, "NetworkPolicy", own, spec=spec, **owned("AgentSession", "a")) == [f"session/{NS}/a"]
    assert heard(context, "NetworkPolicy", "open") == [f"session/{NS}/a", f"session/{NS}/b"]
    assert heard(context, "NetworkPolicy", "open", "DELETED") == [f"session/{NS}/a", f"session/{NS}/b"]
    assert heard(context, "NetworkPolicy", "carrel-kernel-port", "ADDED") == []
    assert heard(context, "NetworkPolicy", "carrel-kernel-port", "MODIFIED", version="6") == [f"namespace/{NS}"]
    assert heard(context, "NetworkPolicy", "carrel-kernel-deny-all", "DELETED") == [f"namespace/{NS}"]


def test_the_sessions_of_a_tenant_take_turns_as_one(context: ProcessContext):
    for name, tenant in (("a", "one"), ("b", "one"), ("c", "two")):
        document = session({"tenant": tenant}, name=name, uid=name).dump()
        context.store.heard("AgentSession", document)
    groups = {name: context._group_of(Key("session", NS, name)) for name in ("a", "b", "c", "gone")}
    assert groups["a"] == groups["b"]
    assert len({groups["a"], groups["c"], groups["gone"], context._group_of(Key("pool", NS, "warm"))}) == 4
    assert context._group_of(Key("session", "another", "a")) != groups["a"]
