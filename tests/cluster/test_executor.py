"""The kubernetes executor against a real API server, in a namespace that no operator looks at: the test plays it.

Plan: the AgentSession is made once, named after the session; the wait ends when the status says Ready and the pod
confirms it, and not before: a pod of another UID, of another session, without the kernel's label or without an address
is not believed; what waiting does not help against is said at once, with advice; a wait that is too long names the last
reason; an object made with kubectl is found by its UID, and only such a one is taken up; release deletes that very
object; suspend ends that very pod, and the next use wakes the session when the pod is gone; requests to save sessions
are seen from a list and from a watch until they are answered, each as whose session it is; one that nobody has saved
goes on when it is used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from tests.cluster.provider.base import Cluster

from carrel_api.names import COMPONENT_LABEL, KERNEL_COMPONENT, KERNEL_PORT, SESSION_LABEL, SNAPSHOT_FAILURE_ANNOTATION
from carrel_gateway.errors import ExecutorFailed
from carrel_gateway.executors.base import Listed, Saved, SessionRef, Sighting, SuspensionRequest
from carrel_gateway.executors.kubernetes import KubernetesExecutor, hash_of
from carrel_gateway.kernels.signing import load_host_keys
from carrel_gateway.settings import Settings
from carrel_wire.tokens import generate_private_key

CRDS = Path(__file__).parents[2] / "crds"
ADDRESS = "10.244.250.9"
SAVED = Saved(ref=str(uuid4()), digest="0" * 64)


class Namespace:
    """The namespace of one test, and the operator's part in it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self.name = name

    def session(self, name: str) -> dict[str, Any]:
        return self._cluster.get("agentsessions.carrel.dev", name, f"--namespace={self.name}")

    def sessions(self) -> list[dict[str, Any]]:
        return self._cluster.get("agentsessions.carrel.dev", f"--namespace={self.name}")["items"]

    def make_session(self, name: str) -> dict[str, Any]:
        document = {"apiVersion": "carrel.dev/v1alpha1", "kind": "AgentSession", "metadata": {"name": name}}
        self._cluster.apply(document, namespace=self.name)
        return self.session(name)

    def make_pod(self, labels: dict[str, str], *, address: str | None = ADDRESS) -> dict[str, Any]:
        """Make a pod that nobody schedules, and give it an address as a node would."""
        name = f"pod-{uuid4().hex[:8]}"
        container = {
            "name": "kernel",
            "image": "nobody.invalid/nothing",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        metadata = {"name": name, "labels": labels}
        spec = {"schedulerName": "nobody", "containers": [container]}
        self._cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, namespace=self.name
        )
        if address:
            self._patch_status("pod", name, {"podIP": address, "podIPs": [{"ip": address}]})
        return self._cluster.get("pod", name, f"--namespace={self.name}")

    def say(
        self,
        name: str,
        status: str,
        reason: str,
        message: str = "",
        *,
        kind: str = "Ready",
        asked: str = "",
        **more: Any,
    ) -> None:
        """Write a condition, as the operator does, and with `asked` the one that asks for the session to be saved."""
        found = self.session(name)

        def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
            return {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "observedGeneration": found["metadata"]["generation"],
            }

        conditions = [condition(kind, status, reason)]
        if asked:
            conditions.append(condition("SnapshotRequested", "True", asked))
        self._patch_status("agentsessions.carrel.dev", name, {"conditions": conditions, **more})

    def suspend(self, name: str) -> None:
        """Set the mode, as a person does with kubectl."""
        patch = json.dumps({"spec": {"operatingMode": "Suspended"}})
        self._cluster.kubectl(
            "patch", "agentsessions.carrel.dev", name, f"--namespace={self.name}", "--type=merge", f"--patch={patch}"
        )

    def _patch_status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        self._cluster.patch(kind, name, {"status": status}, namespace=self.name, subresource="status")


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> None:
    for path in sorted(CRDS.glob("*.yaml")):
        cluster.apply(yaml.safe_load(path.read_text(encoding="utf-8")))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/agentsessions.carrel.dev")


@pytest.fixture
def place(cluster: Cluster, definitions: None, namespace: str) -> Namespace:
    return Namespace(cluster, namespace)


@pytest.fixture
async def open_executor(
    cluster: Cluster, place: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    key = tmp_path / "key.pem"
    key.write_text(generate_private_key())
    opened: list[KubernetesExecutor] = []

    async def make(*, seconds: float = 60) -> KubernetesExecutor:
        settings = Settings(
            _env_file=None,
            data_dir=tmp_path,
            executor_type="kubernetes",
            kernel_private_key_file=key,
            session_namespace=place.name,
            kernel_start_seconds=seconds,
        )
        load_host_keys(settings)
        opened.append(await KubernetesExecutor.open(settings))
        return opened[-1]

    yield make
    for executor in opened:
        await executor.aclose()


def new_session(session_id: UUID | None = None) -> SessionRef:
    return SessionRef(tenant_id=uuid4(), session_id=session_id or uuid4(), owner_id=uuid4())


def kernel_labels(session_uid: str) -> dict[str, str]:
    return {COMPONENT_LABEL: KERNEL_COMPONENT, SESSION_LABEL: hash_of(session_uid)}


async def made(place: Namespace, session: SessionRef) -> dict[str, Any]:
    """Return the AgentSession as soon as the executor has made it."""
    async with asyncio.timeout(30):
        while True:
            found = await asyncio.to_thread(place.sessions)
            if found:
                assert [item["metadata"]["name"] for item in found] == [str(session.session_id)]
                return found[0]
            await asyncio.sleep(0.1)


async def test_the_wait_ends_when_the_pod_confirms_the_status(place: Namespace, open_executor: Callable[..., Any]):
    executor, session = await open_executor(), new_session()
    waiting = [asyncio.create_task(executor.acquire(session)) for _ in range(3)]
    found = await made(place, session)
    assert found["spec"]["owner"] == str(session.owner_id)
    assert found["spec"]["tenant"] == str(session.tenant_id)
    uid, name = found["metadata"]["uid"], found["metadata"]["name"]
    await asyncio.to_thread(place.say, name, "False", "Starting", "the pod is starting")
    assert await executor.find(session) is None
    pod = await asyncio.to_thread(place.make_pod, kernel_labels(uid))
    await asyncio.to_thread(
        place.say, name, "True", "Bound", podName=pod["metadata"]["name"], podUID=pod["metadata"]["uid"]
    )
    for endpoint in await asyncio.gather(*waiting):
        assert endpoint.session_uid == uid
        assert endpoint.audience == pod["metadata"]["uid"]
        assert endpoint.url == f"http://{ADDRESS}:{KERNEL_PORT}"
    assert await executor.find(session) == await executor.acquire(session)


async def test_a_status_that_the_pod_does_not_confirm_is_not_believed(
    place: Namespace, open_executor: Callable[..., Any]
):
    executor = await open_executor()
    found = await asyncio.to_thread(place.make_session, "forged")
    name, uid = found["metadata"]["name"], found["metadata"]["uid"]
    session = new_session(UUID(uid))
    mine, foreign = kernel_labels(uid), kernel_labels(str(uuid4()))
    cases = [(mine, ADDRESS, str(uuid4())), (foreign, ADDRESS, None), (mine, None, None), ({}, ADDRESS, None)]
    for labels, address, pod_uid in cases:
        pod = await asyncio.to_thread(place.make_pod, labels, address=address)
        names = {"podName": pod["metadata"]["name"], "podUID": pod_uid or pod["metadata"]["uid"]}
        await asyncio.to_thread(place.say, name, "True", "Bound", endpoint="169.254.169.254:80", **names)
        assert await executor.find(session) is None, (labels, address, pod_uid)
    await asyncio.to_thread(place.say, name, "True", "Bound", podName="gone", podUID=str(uuid4()))
    assert await executor.find(session) is None


@pytest.mark.parametrize("reason", ["ClassNotFound", "ResourcesAboveClass", "ImagePullFailed", "NotIsolated"])
async def test_what_waiting_does_not_help_against_is_said_at_once(
    place: Namespace, open_executor: Callable[..., Any], reason: str
):
    executor, session = await open_executor(), new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    found = await made(place, session)
    await asyncio.to_thread(place.say, found["metadata"]["name"], "False", reason, "what the operator says")
    with pytest.raises(ExecutorFailed, match=f"{reason}: what the operator says") as caught:
        await waiting
    assert caught.value.detail["reason"] == reason
    assert (caught.value.status, caught.value.retry_after_seconds) == (503, 5)


async def test_a_wait_that_is_too_long_names_the_last_reason(place: Namespace, open_executor: Callable[..., Any]):
    executor, session = await open_executor(seconds=4), new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    found = await made(place, session)
    await asyncio.to_thread(place.say, found["metadata"]["name"], "False", "Unschedulable", "0/1 nodes are available")
    with pytest.raises(ExecutorFailed, match="Unschedulable: 0/1 nodes are available"):
        await waiting


async def test_an_object_made_with_kubectl_is_found_by_its_uid(place: Namespace, open_executor: Callable[..., Any]):
    executor = await open_executor()
    found = await asyncio.to_thread(place.make_session, "by-hand")
    session = new_session(UUID(found["metadata"]["uid"]))
    pod = await asyncio.to_thread(place.make_pod, kernel_labels(found["metadata"]["uid"]))
    names = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"]}
    await asyncio.to_thread(place.say, "by-hand", "True", "Bound", **names)
    assert (await executor.acquire(session)).session_uid == found["metadata"]["uid"]
    assert len(await asyncio.to_thread(place.sessions)) == 1
    await executor.release(session)
    assert await asyncio.to_thread(place.sessions) == []


async def test_only_what_no_gateway_made_is_taken_up(place: Namespace, open_executor: Callable[..., Any]):
    executor = await open_executor()
    by_hand = UUID((await asyncio.to_thread(place.make_session, "by-hand"))["metadata"]["uid"])
    assert await executor.made_elsewhere(by_hand) == "by-hand"
    assert await executor.made_elsewhere(uuid4()) is None
    session = new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    async with asyncio.timeout(30):
        while len(found := await asyncio.to_thread(place.sessions)) < 2:  # noqa: ASYNC110  asked with kubectl
            await asyncio.sleep(0.1)
    waiting.cancel()
    (own,) = (item for item in found if item["metadata"]["name"] != "by-hand")
    assert await executor.made_elsewhere(UUID(own["metadata"]["uid"])) is None, "it has an owner already"
    await executor.release(new_session(by_hand))
    assert await executor.made_elsewhere(by_hand) is None


async def test_an_object_that_only_has_the_sessions_name_is_not_its_own(
    place: Namespace, open_executor: Callable[..., Any]
):
    executor, session = await open_executor(), new_session()
    found = await asyncio.to_thread(place.make_session, str(session.session_id))
    pod = await asyncio.to_thread(place.make_pod, kernel_labels(found["metadata"]["uid"]))
    names = {"podName": pod["metadata"]["name"], "podUID": pod["metadata"]["uid"]}
    await asyncio.to_thread(place.say, str(session.session_id), "True", "Bound", **names)
    for ask in (executor.acquire, executor.find, executor.release):
        with pytest.raises(ExecutorFailed, match="an administrator must delete it"):
            await ask(session)
    assert len(await asyncio.to_thread(place.sessions)) == 1


async def test_a_name_that_was_given_again_is_another_session(place: Namespace, open_executor: Callable[..., Any]):
    executor = await open_executor()
    first = new_session(UUID((await asyncio.to_thread(place.make_session, "by-hand"))["metadata"]["uid"]))
    assert await executor.find(first) is None  # not ready, but found, and its name is known from now on
    await executor.release(first)
    second = await asyncio.to_thread(place.make_session, "by-hand")
    assert await executor.find(first) is None
    await executor.release(first)
    assert [item["metadata"]["uid"] for item in await asyncio.to_thread(place.sessions)] == [second["metadata"]["uid"]]


async def test_release_deletes_and_the_next_use_makes_another(place: Namespace, open_executor: Callable[..., Any]):
    executor, session = await open_executor(seconds=4), new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    first = await made(place, session)
    with pytest.raises(ExecutorFailed):
        await waiting
    await executor.release(session)
    await executor.release(session)
    assert await asyncio.to_thread(place.sessions) == []
    waiting = asyncio.create_task(executor.acquire(session))
    second = await made(place, session)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    with pytest.raises(ExecutorFailed, match="operator"):
        await waiting


async def test_a_deletion_while_it_starts_is_told_and_nothing_is_made_again(
    place: Namespace, open_executor: Callable[..., Any]
):
    executor, session = await open_executor(), new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    await made(place, session)
    assert await executor.made_by_gateways() == [session]
    await executor.release(session)
    with pytest.raises(ExecutorFailed, match="deleted while it started"):
        await waiting
    assert await executor.made_by_gateways() == []
    assert await asyncio.to_thread(place.sessions) == []


async def test_suspend_ends_one_pod_and_the_next_use_wakes_the_session(
    place: Namespace, open_executor: Callable[..., Any]
):
    async def mode() -> str:
        return (await asyncio.to_thread(place.session, str(session.session_id)))["spec"].get("operatingMode", "Running")

    async def say(status: str, reason: str, **more: Any) -> None:
        await asyncio.to_thread(place.say, str(session.session_id), status, reason, **more)

    executor, session = await open_executor(), new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    uid = (await made(place, session))["metadata"]["uid"]
    pod = (await asyncio.to_thread(place.make_pod, kernel_labels(uid)))["metadata"]
    await say("True", "Bound", podName=pod["name"], podUID=pod["uid"])
    await waiting
    await executor.suspend(session, str(uuid4()), SAVED)
    assert await mode() == "Running", "another pod was meant, which is gone"
    await asyncio.gather(*(executor.suspend(session, pod["uid"], SAVED) for _ in range(3)))
    assert await mode() == "Suspended"
    spec = (await asyncio.to_thread(place.session, str(session.session_id)))["spec"]
    assert spec["snapshot"] == {"podUID": pod["uid"], "ref": SAVED.ref, "digest": SAVED.digest}
    assert await executor.find(session) is None, "what the status says is of the spec before"
    waiting = asyncio.create_task(executor.acquire(session))
    await say("False", "Suspending", kind="Suspended", podName=pod["name"], podUID=pod["uid"])
    await asyncio.sleep(1)  # longer than it takes to look twice
    assert await mode() == "Suspended", "the old pod is still there"
    await say("True", "Suspended", kind="Suspended", podName=None, podUID=None)
    async with asyncio.timeout(30):
        while await mode() != "Running":  # noqa: ASYNC110  asked with kubectl
            await asyncio.sleep(0.1)
    new = (await asyncio.to_thread(place.make_pod, kernel_labels(uid)))["metadata"]
    await say("True", "Bound", podName=new["name"], podUID=new["uid"])
    assert (await waiting).audience == new["uid"]
    await executor.suspend(session, pod["uid"], SAVED)
    assert await mode() == "Running", "the old pod's end must not end the new one"
    await executor.release(session)
    await executor.suspend(session, new["uid"], SAVED)


async def seen(executor: KubernetesExecutor, name: str, *, until: Callable[[Sighting], bool]) -> Sighting:
    """Return the first sighting of a session that the test waits for."""
    async with asyncio.timeout(30), aclosing(executor.suspension_requests().follow()) as sightings:
        async for sighting in sightings:
            if isinstance(sighting, Sighting) and sighting.name == name and until(sighting):
                return sighting
    raise AssertionError("the watch ended before it")


async def test_requests_are_seen_until_they_are_answered(place: Namespace, open_executor: Callable[..., Any]):
    executor, session = await open_executor(), new_session()
    waiting = asyncio.create_task(executor.acquire(session))
    found = (await made(place, session))["metadata"]
    by_hand = (await asyncio.to_thread(place.make_session, "by-hand"))["metadata"]
    pods = {}
    for name, uid in ((found["name"], found["uid"]), ("by-hand", by_hand["uid"])):
        pods[name] = (await asyncio.to_thread(place.make_pod, kernel_labels(uid)))["metadata"]
        names = {"podName": pods[name]["name"], "podUID": pods[name]["uid"]}
        await asyncio.to_thread(place.say, name, "True", "Bound", **names)
    await waiting
    follower = executor.suspension_requests().follow()
    names = set()
    while not isinstance(item := await anext(follower), Listed):
        assert item.request is None
        names.add(item.name)
    assert names == item.names == {found["name"], "by-hand"}
    await asyncio.to_thread(place.say, found["name"], "True", "Bound", asked="Idle")
    async with asyncio.timeout(30):
        while (item := await anext(follower)).request is None:
            pass
    assert item.request == SuspensionRequest(
        name=found["name"],
        session_id=session.session_id,
        tenant_id=session.tenant_id,
        owner_id=session.owner_id,
        pod_uid=pods[found["name"]]["uid"],
        reason="Idle",
    )
    await follower.aclose()
    await asyncio.to_thread(place.suspend, "by-hand")
    await asyncio.to_thread(place.say, "by-hand", "False", "Suspending", asked="Suspending")
    request = (await seen(executor, "by-hand", until=lambda item: item.request is not None)).request
    assert request == SuspensionRequest(
        "by-hand", UUID(by_hand["uid"]), None, None, pods["by-hand"]["uid"], "Suspending"
    )
    hers = SessionRef(uuid4(), UUID(by_hand["uid"]), uuid4())
    assert (await executor.find(hers)).audience == request.pod_uid, "it must be reached to be saved"
    explain = executor.suspension_requests().explain
    await explain("by-hand", "a cell is running. " * 50)
    written = (await asyncio.to_thread(place.session, "by-hand"))["metadata"]["annotations"]
    assert len(written[SNAPSHOT_FAILURE_ANNOTATION]) == 500
    assert (await seen(executor, "by-hand", until=lambda _: True)).explained
    await executor.suspend(hers, request.pod_uid, Saved())
    answered = await asyncio.to_thread(place.session, "by-hand")
    assert answered["spec"]["snapshot"] == {"podUID": request.pod_uid, "ref": "", "digest": ""}
    assert SNAPSHOT_FAILURE_ANNOTATION not in answered["metadata"].get("annotations", {})
    assert await executor.find(hers) is None
    sighting = await seen(executor, "by-hand", until=lambda _: True)
    assert (sighting.request, sighting.explained) == (None, False)
    await explain("gone", "nobody is there to read it")
    await executor.release(session)
    await seen(executor, "by-hand", until=lambda _: True)


async def test_a_session_that_nobody_has_saved_goes_on_when_it_is_used(
    place: Namespace, open_executor: Callable[..., Any]
):
    executor, session = await open_executor(), new_session()
    name = str(session.session_id)
    waiting = asyncio.create_task(executor.acquire(session))
    uid = (await made(place, session))["metadata"]["uid"]
    pod = (await asyncio.to_thread(place.make_pod, kernel_labels(uid)))["metadata"]
    names = {"podName": pod["name"], "podUID": pod["uid"]}
    await asyncio.to_thread(place.say, name, "True", "Bound", **names)
    await waiting
    await asyncio.to_thread(place.suspend, name)
    waiting = asyncio.create_task(executor.acquire(session))
    await asyncio.sleep(1)
    mode = (await asyncio.to_thread(place.session, name))["spec"]["operatingMode"]
    assert mode == "Suspended", "the operator has not said yet that it waits"
    await asyncio.to_thread(place.say, name, "False", "Suspending", asked="Suspending", **names)
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(place.session, name))["spec"]["operatingMode"] != "Running":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.to_thread(place.say, name, "True", "Bound", **names)
    assert (await waiting).audience == pod["uid"]


async def test_ping_asks_the_api_server(place: Namespace, open_executor: Callable[..., Any]):
    await (await open_executor()).ping()
