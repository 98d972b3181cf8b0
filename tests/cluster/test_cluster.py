"""The cluster that all other cluster tests stand on.

Plan: it does what they take for granted. The kernel image runs as a restricted pod; pods find services by name and
nothing outside; a claim gets a volume that a non-root pod writes and that outlives it; the restricted standard is
enforced; a NetworkPolicy closes a connection that was open before; `kubectl` errors reach the test.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.cluster.pods import output, python_pod, wait_ready
from tests.cluster.provider.base import Cluster, KubectlError
from tools.images import Image

LISTEN = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b"hello")
socketserver.ThreadingTCPServer(("0.0.0.0", 8888), Echo).serve_forever()
"""


def connect(host: str) -> str:
    """Code that prints what a connection gives: the greeting, or the name of the error."""
    return f"""
import socket
try:
    with socket.create_connection(({host!r}, 8888), timeout=3) as connection: print(connection.recv(5).decode())
except OSError as error: print(type(error).__name__)
"""


def test_a_restricted_pod_runs_the_kernel_image(
    cluster: Cluster, namespace: str, image: Callable[[str], Image]
) -> None:
    code = """
import json, os, pandas, carrel_kernel
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
try: open("/opt/carrel/x", "w"); writable = True
except OSError: writable = False
open("/workspace/x", "w").write("x")
print(json.dumps({"uid": os.getuid(), "caps": int(status["CapEff"], 16), "nnp": status["NoNewPrivs"],
    "seccomp": status["Seccomp"], "writable": writable, "token": os.path.exists("/var/run/secrets/kubernetes.io")}))
"""
    cluster.apply(python_pod("probe", code, image=image("kernel").tag), namespace=namespace)
    assert json.loads(output(cluster, namespace, "probe")) == {
        "uid": 65532,
        "caps": 0,
        "nnp": "1",
        "seccomp": "2",
        "writable": False,
        "token": False,
    }


def test_a_privileged_pod_is_refused(cluster: Cluster, namespace: str) -> None:
    pod = python_pod("bad", "", image="localhost/carrel-kernel:dev")
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        cluster.apply(pod, namespace=namespace)


def test_names_of_services_resolve_and_names_outside_do_not(
    cluster: Cluster, namespace: str, image: Callable[[str], Image]
) -> None:
    code = """
import socket
print(socket.gethostbyname("kubernetes.default.svc.cluster.local") != "")
try: socket.gethostbyname("outside.test"); print("resolved")
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
"""
    cluster.apply(python_pod("names", code, image=image("kernel").tag), namespace=namespace)
    assert output(cluster, namespace, "names").split() == ["True", "True"]


def test_a_claim_outlives_its_pod(cluster: Cluster, namespace: str, image: Callable[[str], Image]) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "work"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    tag = image("kernel").tag
    cluster.apply(claim, namespace=namespace)
    write = 'open("/workspace/note", "w").write("kept")'
    cluster.apply(python_pod("first", write, image=tag, claim="work"), namespace=namespace)
    output(cluster, namespace, "first")
    cluster.kubectl("delete", "pod", "first", f"--namespace={namespace}")
    read = 'print(open("/workspace/note").read())'
    cluster.apply(python_pod("second", read, image=tag, claim="work"), namespace=namespace)
    assert output(cluster, namespace, "second").strip() == "kept"


def test_a_network_policy_closes_what_was_open(cluster: Cluster, namespace: str, image: Callable[[str], Image]) -> None:
    tag = image("kernel").tag
    server = python_pod("server", LISTEN, image=tag, labels={"app": "server"})
    server["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8888}, "periodSeconds": 1}
    cluster.apply(server, namespace=namespace)
    address = wait_ready(cluster, namespace, "server")
    cluster.apply(python_pod("before", connect(address), image=tag), namespace=namespace)
    assert output(cluster, namespace, "before").strip() == "hello"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
        },
    }
    cluster.apply(policy, namespace=namespace)
    cluster.apply(python_pod("stranger", connect(address), image=tag), namespace=namespace)
    cluster.apply(python_pod("friend", connect(address), image=tag, labels={"app": "friend"}), namespace=namespace)
    assert output(cluster, namespace, "stranger").strip() == "TimeoutError"
    assert output(cluster, namespace, "friend").strip() == "hello"
