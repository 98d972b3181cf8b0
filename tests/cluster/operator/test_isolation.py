"""Isolation that is seen on a real network, and the three ways to be fooled about it.

Plan: a kernel pod as the operator builds it, with the policies and keys that it makes, and beside it a pod that runs
the operator's own listener and, on demand, its look: from a node nothing is ever blocked, so a pod must look. With
policies in force the look says so, and says so no more

(a) without enforcement, of what goes in, of what comes out, and of both; the API server says the same as before;
(b) where moreover nobody listens on the closed port: refused there, which is no proof;
(c) under a foreign policy that opens everything, which is also found by its name, until it is deleted.

A pod without a closed port whose policies are in force passes: it is isolated. Bound hosts are not asked again.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.cluster.operator.sessions import eventually
from tests.cluster.pods import python_pod, wait_ready
from tests.cluster.provider.bare import BareCluster
from tests.cluster.provider.base import Cluster
from tools.images import Image

from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClass
from carrel_operator.builders.keys import keys_config_map
from carrel_operator.builders.network_policy import Peer, namespace_policies
from carrel_operator.builders.pod import kernel_pod
from carrel_operator.isolation import foreign_policies, isolated
from carrel_operator.settlement import Settlement, settle
from carrel_operator.sight import Sight
from carrel_wire.host import BindRequest
from carrel_wire.tokens import BIND, STATE, KeySet, PublicKey, generate_private_key, public_key_of

OPERATOR = {"app.kubernetes.io/component": "operator"}
LISTENER = """
import asyncio
from carrel_operator.handlers import probes
from carrel_operator.queue import WorkQueue
from carrel_operator.settings import Settings
from carrel_operator.store import Store

async def main():
    settings = Settings(operator_private_key_file="/none", gateway_public_key_file="/none")
    async with probes.serve(probes.Health(WorkQueue(str, workers=2), Store()), settings):
        await asyncio.Event().wait()

asyncio.run(main())
"""
LOOK = """
import asyncio, json, socket, sys
import msgspec
from carrel_operator.hosts import Hosts
from carrel_operator.sighting import Lookout, Target
from carrel_wire.host import BindRequest
from carrel_wire.tokens import Signer

async def main():
    told = json.load(sys.stdin)
    hosts = Hosts(Signer("operator-1", told["key"]), timeout_seconds=5.0)
    target = Target(told["ip"], told["uid"])
    try:
        if told["bind"]:
            await hosts.bind(target.endpoint, msgspec.convert(told["bind"], BindRequest))
        own = socket.gethostbyname(socket.gethostname())
        seen = await Lookout(hosts, own, 8081).look(target, unbound=True)
    finally:
        await hosts.aclose()
    print(json.dumps([seen.kernel_port, seen.closed_port, seen.from_pod, seen.not_asked]))

asyncio.run(main())
"""


@dataclass(frozen=True)
class Scene:
    """A namespace of sessions as the operator prepares it, and a pod beside it that looks."""

    cluster: Cluster
    control: str
    sessions: str
    image: str
    key: str

    def look(self, pod: dict[str, Any], bind: BindRequest | None = None) -> Sight:
        """Look at a pod once, from the other pod; with a request, bind it first."""
        request = None if bind is None else {"session_uid": bind.session_uid, "pod_uid": bind.pod_uid}
        told = {"key": self.key, "ip": pod["status"]["podIP"], "uid": pod["metadata"]["uid"], "bind": request}
        command = ("exec", "-i", "lookout", f"--namespace={self.control}", "--", "python", "-c", LOOK)
        *_, said = self.cluster.kubectl(*command, stdin=json.dumps(told)).splitlines()  # after what it logs
        kernel_port, closed_port, from_pod, why = json.loads(said)
        return Sight(kernel_port, closed_port, from_pod, datetime.now(UTC), why)

    def reason(self, pod: dict[str, Any]) -> str:
        """Return the reason of `Isolated` as the operator would find it now."""
        policies = self.cluster.get("networkpolicies", f"--namespace={self.sessions}")["items"]
        foreign = foreign_policies(policies, pod["metadata"]["labels"])
        return isolated(self.look(pod), foreign=foreign).reason

    def becomes(self, pod: dict[str, Any], reason: str) -> None:
        """Wait until that is the reason: policies come into force some time after they are made."""
        eventually(f"Isolated with reason {reason}", lambda: self.reason(pod) == reason)

    def start(self, *, closed_port: bool = True) -> dict[str, Any]:
        """Start a kernel pod, as the operator would for a session, and return it when its host listens."""
        pod = manifest(self.sessions, self.image)
        [container] = pod["spec"]["containers"]
        container["env"] = [one for one in container["env"] if closed_port or "CLOSED" not in one["name"]]
        container["readinessProbe"] = {"httpGet": {"path": "/readyz", "port": 8888}, "periodSeconds": 1}
        self.cluster.apply(pod)
        wait_ready(self.cluster, self.sessions, pod["metadata"]["name"], 120)
        return self.cluster.get("pod", pod["metadata"]["name"], f"--namespace={self.sessions}")


def manifest(namespace: str, image: str) -> dict[str, Any]:
    """Return the pod of a session that is nowhere: nothing owns it, or the cluster would collect it at once."""
    name = secrets.token_hex(4)
    metadata = {"name": f"desk-{name}", "namespace": namespace, "uid": f"uid-{name}"}
    session = AgentSession.parse({"metadata": metadata, "spec": {}})
    spec = {
        "images": [{"name": "default", "reference": image}],
        "allowTags": True,
        "runAsUser": 65532,
        "defaultResources": {"memory": "384Mi", "cpu": "500m"},
        "kernels": {"preload": [], "spare": 0},
    }
    settled = settle(session.spec, SessionClass.parse({"metadata": {"name": "none"}, "spec": spec}))
    assert isinstance(settled, Settlement)
    pod = kernel_pod(session, settled)
    del pod["metadata"]["ownerReferences"]
    return pod


@pytest.fixture(scope="module")
def scene(cluster: Cluster, image: Callable[[str], Image]) -> Generator[Scene]:
    """Both namespaces, policies, keys and the pod that looks."""
    suffix = secrets.token_hex(4)
    made = Scene(
        cluster, f"carrel-look-{suffix}", f"carrel-look-{suffix}-s", image("kernel").tag, generate_private_key()
    )
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    for name in (made.control, made.sessions):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    keys = KeySet(keys=[PublicKey("operator-1", public_key_of(made.key), [BIND, STATE])])
    policies = namespace_policies(made.sessions, [Peer(made.control, OPERATOR)])
    cluster.apply(*policies, keys_config_map(made.sessions, keys))
    lookout = python_pod("lookout", LISTENER, image=image("operator").tag, labels=OPERATOR)
    lookout["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8081}, "periodSeconds": 1}
    cluster.apply(lookout, namespace=made.control)
    try:
        wait_ready(cluster, made.control, "lookout")
        yield made
    finally:
        cluster.kubectl("delete", "namespace", made.control, made.sessions, "--wait=false")


@pytest.fixture(scope="module")
def pod(scene: Scene) -> dict[str, Any]:
    """A kernel pod that is nobody's, with its policies in force."""
    pod = scene.start()
    scene.becomes(pod, "Enforced")
    return pod


@contextmanager
def unenforced(cluster: Cluster, pod: dict[str, Any], *ways: str) -> Generator[None]:
    """Let packets to (`-d`) or from (`-s`) one pod pass the chain that enforces policies, as if it were not there."""
    if not isinstance(cluster, BareCluster):
        pytest.skip("enforcement can be taken away on the bare host only")
    rules = [("HOSTCLUSTER-POLICY", way, pod["status"]["podIP"], "-j", "RETURN") for way in ways]
    mangle = ("iptables", "-w", "-t", "mangle")
    try:
        for rule in rules:
            subprocess.run([*mangle, "-I", *rule], check=True, timeout=30)
        yield
    finally:
        for rule in rules:
            subprocess.run([*mangle, "-D", *rule], check=False, timeout=30)


def outcomes(sight: Sight) -> tuple[str, str, str | None]:
    return sight.kernel_port, sight.closed_port, sight.from_pod


def test_policies_in_force_are_seen(scene: Scene, pod: dict[str, Any]):
    assert outcomes(scene.look(pod)) == ("connected", "timeout", "timeout")


@pytest.mark.parametrize(
    ("ways", "seen"),
    [
        (("-d", "-s"), ("connected", "connected", "connected")),
        (("-d",), ("connected", "connected", "timeout")),
        (("-s",), ("connected", "timeout", "connected")),
    ],
)
def test_a_network_that_does_not_enforce_is_seen_whichever_way(
    cluster: Cluster, scene: Scene, pod: dict[str, Any], ways: tuple[str, ...], seen: tuple[str, str, str]
):
    with unenforced(cluster, pod, *ways):
        sight = scene.look(pod)
    assert outcomes(sight) == seen
    assert isolated(sight).reason == "NotEnforced"
    scene.becomes(pod, "Enforced")


def test_a_refusal_where_nobody_listens_is_no_proof(cluster: Cluster, scene: Scene):
    silent = scene.start(closed_port=False)
    scene.becomes(silent, "Enforced")
    with unenforced(cluster, silent, "-d"):
        sight = scene.look(silent)
    assert outcomes(sight) == ("connected", "refused", "timeout")
    assert isolated(sight).reason == "ClosedPortRefused"


def test_a_foreign_policy_that_opens_everything_is_seen_and_named(cluster: Cluster, scene: Scene, pod: dict[str, Any]):
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    metadata = {"name": "open-everything", "namespace": scene.sessions}
    cluster.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    try:
        assert scene.reason(pod) == "ForeignPolicy"
        everything = ("connected", "connected", "connected")
        eventually("the policy is in force", lambda: outcomes(scene.look(pod)) == everything)
    finally:
        cluster.kubectl("delete", "networkpolicy", "open-everything", f"--namespace={scene.sessions}")
    scene.becomes(pod, "Enforced")


def test_a_bound_host_is_not_asked_again(scene: Scene):
    pod = scene.start()
    scene.becomes(pod, "Enforced")
    bound = scene.look(pod, BindRequest(session_uid="session", pod_uid=pod["metadata"]["uid"]))
    assert outcomes(bound) == ("connected", "timeout", None)
    assert "already_bound" in bound.not_asked
    assert isolated(bound, asked_before=True).reason == "Enforced"
