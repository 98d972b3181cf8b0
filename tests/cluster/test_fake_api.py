"""The API server in memory (`tests/support/api_server`) answers as a real one does: the same calls, the same answers.

Plan: one script of calls of the operator's own client, to both: what is there already, what is not, writes that come
too late, patches whose tests fail, preconditions of deletions, status as a subresource, an application that changes
nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

import pytest
from kubernetes.aio import client, config
from tests.cluster.operator.conftest import definitions
from tests.cluster.provider.base import Cluster as Provided
from tests.support.api_server import ApiServer, Connection

from carrel_operator.cluster import Cluster
from carrel_operator.errors import ApiError

__all__ = ["definitions"]

POD_SPEC = {
    "schedulerName": "nobody",  # it stays where it is
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "kernel",
            "image": "example.org/none",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


class Script:
    """Makes the calls, and notes what came of them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.notes: list[tuple[str, object]] = []

    def manifest(self, kind: str, version: str, name: str, **more: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self.namespace, **more.pop("metadata", {})}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}

    async def call(self, what: str, answer: Awaitable[Any]) -> Any:
        try:
            found = await answer
        except ApiError as error:
            self.notes.append((what, type(error).__name__))
            return None
        self.notes.append((what, "done"))
        return found

    async def is_there(self, what: str, kind: str, name: str) -> None:
        self.notes.append((what, await self.cluster.find(kind, name, self.namespace) is not None))

    async def run(self) -> list[tuple[str, object]]:
        await self.objects()
        await self.leases()
        await self.pods()
        await self.sessions()
        return self.notes

    async def objects(self) -> None:
        wanted = self.manifest("ConfigMap", "v1", "keys", data={"a": "1"})
        made = await self.call("apply what is not there", self.cluster.apply(wanted))
        same = await self.call("apply the same", self.cluster.apply(wanted))
        self.notes.append(
            ("the version is the same", made["metadata"]["resourceVersion"] == same["metadata"]["resourceVersion"])
        )
        changed = await self.call("apply another", self.cluster.apply({**wanted, "data": {"b": "2"}}))
        self.notes.append(("what is no longer applied is gone", changed["data"]))
        late, newer = int(made["metadata"]["resourceVersion"]), int(changed["metadata"]["resourceVersion"])
        self.notes.append(("versions grow", newer > late))
        stale = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": str(late)}}
        await self.call("apply too late", self.cluster.apply(stale))
        await self.call("create what is there", self.cluster.create(wanted))

    async def leases(self) -> None:
        lease = self.manifest("Lease", "coordination.k8s.io/v1", "lease", spec={"holderIdentity": "one"})
        first = await self.call("create", self.cluster.create(lease))
        await self.call("replace", self.cluster.replace({**first, "spec": {"holderIdentity": "two"}}))
        await self.call("replace too late", self.cluster.replace({**first, "spec": {"holderIdentity": "three"}}))

    async def pods(self) -> None:
        wanted = self.manifest("Pod", "v1", "", metadata={"generateName": "warm-", "labels": {"a": "1"}}, spec=POD_SPEC)
        del wanted["metadata"]["name"]
        made = await self.call("create with a generated name", self.cluster.create(wanted))
        name, uid, version = (made["metadata"][key] for key in ("name", "uid", "resourceVersion"))
        self.notes.append(("the name begins as asked", name.startswith("warm-") and name != "warm-"))
        self.notes.append(("its phase", made["status"]["phase"]))

        async def patch(what: str, *operations: dict[str, Any], of: str = name) -> Any:
            return await self.call(what, self.cluster.patch("Pod", of, self.namespace, list(operations)))

        right = {"op": "test", "path": "/metadata/uid", "value": uid}
        labels = {"op": "replace", "path": "/metadata/labels", "value": {"b": "2"}}
        await patch("a test that fails", {**right, "value": "another"}, labels)
        await patch("a test of what is not there", {**right, "path": "/metadata/annotations/none"}, labels)
        await patch("replace what is not there", {**labels, "path": "/metadata/annotations/none", "value": "x"})
        await patch("a patch of nothing", labels, of="none")
        patched = await patch(
            "tests that hold", right, {**right, "path": "/metadata/resourceVersion", "value": version}, labels
        )
        self.notes.append(("labels", patched["metadata"]["labels"]))
        await patch(
            "a test of an earlier version", {**right, "path": "/metadata/resourceVersion", "value": version}, labels
        )
        for what, options in (
            ("another UID", {"uid": "another"}),
            ("an earlier version", {"uid": uid, "version": version}),
            ("the very pod", {"uid": uid, "version": patched["metadata"]["resourceVersion"]}),
            ("what is gone", {"uid": uid}),
        ):
            await self.call(f"delete {what}", self.cluster.delete("Pod", name, self.namespace, **options))
            await self.is_there(f"after it: {what}", "Pod", name)

    async def sessions(self) -> None:
        wanted = self.manifest("AgentSession", "carrel.dev/v1alpha1", "desk", spec={"className": "none"})
        made = await self.call("create a session", self.cluster.create({**wanted, "status": {"restarts": 7}}))
        self.notes.append(("its status and generation", (made.get("status"), made["metadata"]["generation"])))
        version = made["metadata"]["resourceVersion"]

        async def status(what: str, restarts: int, version: str, name: str = "desk") -> Any:
            manifest = self.manifest("AgentSession", "carrel.dev/v1alpha1", name, status={"restarts": restarts})
            manifest["metadata"]["resourceVersion"] = version
            return await self.call(what, self.cluster.apply(manifest, subresource="status"))

        said = await status("apply status", 1, version)
        self.notes.append(("after it", (said["status"]["restarts"], said["metadata"]["generation"])))
        await status("apply status too late", 2, version)
        same = await status("apply the same status", 1, said["metadata"]["resourceVersion"])
        self.notes.append(("same version", same["metadata"]["resourceVersion"] == said["metadata"]["resourceVersion"]))
        await status("apply status of nothing", 1, version, name="none")
        await self.call("delete the session", self.cluster.delete("AgentSession", "desk", self.namespace))
        await self.is_there("after it: the session", "AgentSession", "desk")


async def connected(provided: Provided) -> Cluster:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(provided.kubeconfig), client_configuration=configuration)
    return Cluster(client.ApiClient(configuration))


@pytest.mark.usefixtures("definitions")
async def test_both_answer_the_same(cluster: Provided, namespace: str):
    real = await connected(cluster)
    try:
        expected = await Script(real, namespace).run()
    finally:
        await real.aclose()
    assert await Script(cast("Cluster", Connection(ApiServer())), namespace).run() == expected
