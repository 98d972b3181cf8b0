"""Nodes that are not real, with kwok: pods there are Running and Ready at once, and a stub answers for their kernels.

kwok and the stub (`stub_host`) run as processes of the test on this host, and the addresses that kwok gives to pods are
routed to this host's loopback while they run. Packets to the closed port there are dropped, as an enforcing network
would. Only what tolerates the nodes' taint and selects their label lands there (`FakeNodes.placement`), and nothing of
it lands elsewhere. One at a time on one host; a second one waits.

It does not show how pods start, run or are kept apart: see `stub_host`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from tests.cluster.provider.base import Cluster
from tests.support.identities import kubeconfig_of
from tools.go_tools import cache_folder, ensure

from carrel_api.names import CLOSED_PORT

LABEL: Final = "carrel.test/kwok"
"""On each such node, and the key of its taint; the value is of one run."""
CIDR: Final = "198.18.0.0/16"
"""Of the range for benchmarks (RFC 2544), which no network uses."""
READY_SECONDS: Final = 60
ROOT: Final = Path(__file__).parents[2]

RULES: Final[list[dict[str, Any]]] = [
    {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch", "patch", "update", "delete"]},
    {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["patch", "update"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
     "verbs": ["get", "list", "watch", "create", "patch", "update"]},
    {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
]  # fmt: skip

CONFIGURATION: Final[dict[str, Any]] = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    "options": {
        "podPlayStageParallelism": 32,  # 4 by default: pods would wait for each other's requests
        # What a configuration leaves out has no default.
        "nodePlayStageParallelism": 4,
        "nodeLeaseParallelism": 4,
        "podsOnNodeSyncParallelism": 1,
        "enablePodsOnNodeSyncListPager": True,
        "enablePodsOnNodeSyncStreamWatch": False,
    },
}
NODE: Final = """
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
{{ end }}
allocatable: {cpu: 1k, memory: 64Ti, ephemeral-storage: 64Ti, pods: 1M}
capacity: {cpu: 1k, memory: 64Ti, ephemeral-storage: 64Ti, pods: 1M}
"""
POD: Final = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
{{ range (list "Initialized" "PodReadyToStartContainers" "ContainersReady" "Ready") }}
- type: {{ . | Quote }}
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  containerID: {{ printf "kwok://%s" $.metadata.uid | Quote }}
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
{{ $address := index (PodIPsWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace) 0 }}
podIP: {{ $address | Quote }}
podIPs: [{ip: {{ $address | Quote }}}]
"""


class FakeNodesError(Exception):
    """They cannot be had; the message says why."""


@dataclass(frozen=True)
class FakeNodes:
    """Nodes of one run."""

    run: str
    kwok: int
    """Process id."""
    stub: int
    user: str
    """Under which kwok writes."""

    @property
    def placement(self) -> dict[str, Any]:
        """What a SessionClass, or a pod, says to land there and nowhere else."""
        toleration = {"key": LABEL, "operator": "Equal", "value": self.run, "effect": "NoSchedule"}
        return {"nodeSelector": {LABEL: self.run}, "tolerations": [toleration]}


def missing() -> str | None:
    """Return why there can be none on this host; None where there can."""
    if os.geteuid():
        return "addresses of pods that are not real are routed to loopback, which needs root"
    absent = [name for name in ("ip", "iptables") if shutil.which(name) is None]
    return f"{' and '.join(absent)} must be on PATH" if absent else None


@contextlib.contextmanager
def fake_nodes(cluster: Cluster, count: int) -> Iterator[FakeNodes]:
    """Have nodes meanwhile. Whoever made pods there deletes them before the end; what is left is deleted by force.

    Raises
    ------
    FakeNodesError
        A program does not start, or the nodes do not become ready.
    ToolError
        kwok cannot be built.
    """
    program, run = ensure("kwok"), f"kwok-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carrel-kwok-")))
        stack.enter_context(_alone())
        stack.enter_context(_route())
        stub = stack.enter_context(_stub())
        stack.callback(_remove, cluster, run)
        kwok = stack.enter_context(_kwok(cluster, program, folder, run))
        cluster.apply(*(_node(f"{run}-{n}", run) for n in range(count)))
        stack.callback(_empty, cluster, run, count)
        _await_nodes(cluster, run, kwok, folder / "log")
        yield FakeNodes(run, kwok.pid, stub.pid, f"system:serviceaccount:{run}:kwok")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    path = cache_folder() / "fake-nodes.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _route() -> Iterator[None]:
    # `replace`, and away with the rule first: a run that was killed may have left them
    rule = ["-i", "lo", "-d", CIDR, "-p", "tcp", "--dport", str(CLOSED_PORT), "-j", "DROP"]
    remove = ["iptables", "-w", "-D", "INPUT", *rule]
    while subprocess.run(remove, capture_output=True).returncode == 0:
        pass
    subprocess.run(["iptables", "-w", "-I", "INPUT", *rule], check=True, capture_output=True)
    subprocess.run(["ip", "route", "replace", "local", CIDR, "dev", "lo"], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "del", "local", CIDR, "dev", "lo"], capture_output=True)
        subprocess.run(remove, capture_output=True)


@contextlib.contextmanager
def _process(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def _stub() -> Iterator[subprocess.Popen[bytes]]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "operator", ROOT / "kernel-image")))
    environment = {**os.environ, "PYTHONPATH": paths}
    with _process(sys.executable, "-m", "tests.support.stub_host", CIDR,
                  stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline() != b"listening\n":
            raise FakeNodesError("the stub of the kernel host does not start; is its port taken?")
        yield process


@contextlib.contextmanager
def _kwok(cluster: Cluster, program: Path, folder: Path, run: str) -> Iterator[subprocess.Popen[bytes]]:
    version = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": run}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kwok", "namespace": run}},
        {**version, "kind": "ClusterRole", "metadata": {"name": run}, "rules": RULES},
        {**version, "kind": "ClusterRoleBinding", "metadata": {"name": run},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": run},
         "subjects": [{"kind": "ServiceAccount", "name": "kwok", "namespace": run}]},
    )  # fmt: skip
    stages = folder / "stages.yaml"
    stages.write_text(yaml.safe_dump_all([CONFIGURATION, *_stages()]))
    flags = (
        f"--kubeconfig={kubeconfig_of(cluster, run, 'kwok', folder / 'kubeconfig')}", f"--config={stages}", "--v=WARN",
        f"--cidr={CIDR}", f"--manage-nodes-with-label-selector={LABEL}={run}", "--node-lease-duration-seconds=40",
    )  # fmt: skip
    with (folder / "log").open("wb") as log, _process(str(program), *flags, stdout=log, stderr=log) as process:
        yield process


def _stages() -> list[dict[str, Any]]:
    deleted = ".metadata.deletionTimestamp"
    selectors: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
        "node": ("Node", [_ready("NotIn")], {"statusTemplate": NODE}),
        "pod": ("Pod", [{"key": deleted, "operator": "DoesNotExist"}, _ready("NotIn")], {"statusTemplate": POD}),
        "pod-deleted": ("Pod", [{"key": deleted, "operator": "Exists"}], {"delete": True}),
    }
    return [
        {
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "Stage",
            "metadata": {"name": name},
            "spec": {
                "resourceRef": {"apiGroup": "v1", "kind": kind},
                "selector": {"matchExpressions": expressions},
                "next": then,
            },
        }
        for name, (kind, expressions, then) in selectors.items()
    ]


def _ready(operator: str) -> dict[str, Any]:
    key = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    return {"key": key, "operator": operator, "values": ["True"]}


def _node(name: str, run: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL: run, "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": LABEL, "value": run, "effect": "NoSchedule"}]},
    }


def _await_nodes(cluster: Cluster, run: str, kwok: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        nodes = cluster.get("nodes", f"--selector={LABEL}={run}")["items"]
        taints = [taint["key"] for node in nodes for taint in node["spec"]["taints"]]
        ready = [one for node in nodes for one in node["status"].get("conditions", []) if one["type"] == "Ready"]
        # The controller manager takes its own taint of unready nodes away a moment later.
        if len(ready) == len(nodes) == len(taints) and all(one["status"] == "True" for one in ready):
            return
        if kwok.poll() is not None or time.monotonic() > deadline:
            raise FakeNodesError(f"the nodes of kwok do not become ready:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)


def _empty(cluster: Cluster, run: str, count: int) -> None:
    """Delete the pods that are left, while kwok still runs, and the nodes."""
    for n in range(count):
        pods = cluster.get("pods", "--all-namespaces", f"--field-selector=spec.nodeName={run}-{n}")["items"]
        for namespace in {pod["metadata"]["namespace"] for pod in pods}:
            names = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["namespace"] == namespace]
            cluster.kubectl("delete", "pods", "--namespace", namespace, "--ignore-not-found", "--now", *names)
    cluster.kubectl("delete", "nodes", f"--selector={LABEL}={run}")


def _remove(cluster: Cluster, run: str) -> None:
    cluster.kubectl("delete", "clusterrolebinding,clusterrole", run, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", run, "--ignore-not-found", "--wait=false")
