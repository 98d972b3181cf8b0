"""Who reaches whom, with real connections.

Plan: one list of targets. A stranger pod in a namespace without policies reaches every one of them, which shows that
they listen; code in a kernel reaches none of them, over TCP, nor DNS over UDP. Gateway → kernel and operator → kernel
are open (the cell ran; the pod was bound), stranger → kernel is closed, also from within the session namespace. From
there the operator's own port is open to whoever is no kernel: that kernels do not get there is their policy's doing,
and so proves that it is in force.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.cluster.pods import output, python_pod, wait_ready
from tests.cluster.product.desk import Desk
from tests.cluster.product.outside import Outside
from tests.cluster.provider.base import Cluster
from tools.cluster import Access, Place
from tools.images import Image

PLACE = Place()
PROBE = """
import json, socket, concurrent.futures
def tcp(target):
    host, port = target
    try:
        with socket.create_connection((host, port), timeout=4): return "open"
    except TimeoutError: return "timeout"
    except OSError as error: return type(error).__name__
def dns(host):
    query = bytes.fromhex("0001010000010000000000000a6b756265726e657465730764656661756c740373766307636c7573746572"
                          "056c6f63616c0000010001")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(4)
        try:
            channel.sendto(query, (host, 53))
            channel.recv(512)
            return "open"
        except TimeoutError: return "timeout"
        except OSError as error: return type(error).__name__
targets = json.loads(TARGETS)
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = dict(zip(targets, pool.map(tcp, targets.values())))
    found["DNS over UDP"] = dns(DNS)
print(json.dumps(found))
"""

LISTENER = """
import socketserver
class Greet(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b"hello")
socketserver.ThreadingTCPServer(("0.0.0.0", 8888), Greet).serve_forever()
"""


def probe(targets: dict[str, tuple[str, int]], dns: str) -> str:
    """Return code that tries all targets and prints what came of each."""
    return PROBE.replace("TARGETS", repr(json.dumps(targets))).replace("DNS)", f"{dns!r})")


def pods_of(cluster: Cluster, namespace: str, selector: str) -> list[dict[str, Any]]:
    return cluster.get("pods", f"--namespace={namespace}", f"--selector={selector}")["items"]


def address_of_service(cluster: Cluster, namespace: str, name: str) -> str:
    return cluster.get("service", name, f"--namespace={namespace}")["spec"]["clusterIP"]


def test_kernels_reach_nothing_and_only_gateway_and_operator_reach_kernels(
    cluster: Cluster,
    product: Access,
    namespace: str,
    image: Callable[[str], Image],
    open_desk: Callable[[], Desk],
    outside: Outside,
) -> None:
    desk, neighbour = open_desk(), open_desk()
    assert desk.stdout("print(6 * 7)").strip() == "42"  # gateway → kernel is open, and operator → kernel was, at bind
    assert neighbour.stdout("print(6 * 7)").strip() == "42"
    tag = image("kernel").tag
    listener = python_pod("listener", LISTENER, image=tag)
    listener["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8888}, "periodSeconds": 1}
    cluster.apply(listener, namespace=namespace)
    gateway = pods_of(cluster, PLACE.namespace, "app.kubernetes.io/component=gateway")[0]["status"]["podIP"]
    operator = pods_of(cluster, PLACE.namespace, "app.kubernetes.io/component=operator")[0]["status"]["podIP"]
    node = cluster.node_address
    dns = address_of_service(cluster, "kube-system", "kube-dns")
    kernels = cluster.get("agentsessions.carrel.dev", f"--namespace={PLACE.sessions}")["items"]
    endpoints = [item["status"]["endpoint"] for item in kernels if item.get("status", {}).get("endpoint")]
    assert len(set(endpoints)) >= 2
    targets: dict[str, tuple[str, int]] = {
        "API server, by service": (address_of_service(cluster, "default", "kubernetes"), 443),
        "API server, by node": (node, 6443),
        "kubelet": (node, 10250),
        "a node port": (node, PLACE.gateway_port),
        "metadata service": (outside.metadata, outside.port),
        "an address outside": (outside.public, outside.port),
        "gateway's API": (gateway, 8000),
        "DNS over TCP": (dns, 53),
        "a pod without policies": (wait_ready(cluster, namespace, "listener"), 8888),
    }
    guarded: dict[str, tuple[str, int]] = {
        "gateway's metrics": (gateway, 9090),
        "operator's own port": (operator, 8081),
        "operator's metrics": (operator, 9090),
        "Postgres": (address_of_service(cluster, PLACE.namespace, "postgres"), 5432),
        **{f"kernel {place}": (place.split(":")[0], int(place.split(":")[1])) for place in endpoints},
    }
    code = probe({**targets, **guarded}, dns)

    cluster.apply(python_pod("stranger", code, image=tag), namespace=namespace)
    seen_by_stranger = json.loads(output(cluster, namespace, "stranger"))
    assert {name: seen_by_stranger[name] for name in [*targets, "DNS over UDP"]} == dict.fromkeys(
        [*targets, "DNS over UDP"], "open"
    )
    assert {seen_by_stranger[name] for name in guarded} == {"timeout"}

    own = desk.json("import socket, json; print(json.dumps(socket.gethostbyname(socket.gethostname())))")
    seen_by_kernel = desk.json(code)
    reached = {name for name, outcome in seen_by_kernel.items() if outcome == "open" and own not in name}
    assert reached == set()

    cluster.apply(python_pod("squatter", code, image=tag), namespace=PLACE.sessions)
    try:
        seen_by_squatter = json.loads(output(cluster, PLACE.sessions, "squatter"))
    finally:
        cluster.kubectl("delete", "pod", "squatter", f"--namespace={PLACE.sessions}", "--wait=false")
    assert {name for name in guarded if seen_by_squatter[name] != "timeout"} == {"operator's own port"}
    assert seen_by_squatter["operator's own port"] == "open"
