"""The operator as a process of this host: its own service account and rights, its own namespaces, keys in a folder.

It is the same program as in a pod, with the rights that its reference page lists (`tests.cluster.operator.conftest`),
and it may be killed and started again. That it runs beside the cluster changes one thing: what it calls in pods comes
from the node, which no NetworkPolicy keeps out. So it never sees real pods as isolated, and says so of their sessions.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.operator.conftest import RESTRICTED, Deployed, rights
from tests.cluster.provider.bare import BareCluster
from tests.cluster.provider.base import Cluster
from tests.support.identities import kubeconfig_of
from tests.support.servers import free_port, wait_for

from carrel_wire.tokens import Signer, generate_private_key, public_key_of

ROOT: Final = Path(__file__).parents[2]
GATEWAY_KEY: Final = "gateway-1"
DEFINITIONS: Final = ("agentsessions", "sessionclasses", "sessionpools")


@dataclass
class OperatorProcess:
    """One replica."""

    place: Deployed
    folder: Path
    address: str = "127.0.0.1"
    """Where it answers probes, and where kernel pods try to reach it."""
    gateway_key: str = field(default_factory=generate_private_key)
    process: subprocess.Popen[bytes] | None = None
    ports: tuple[int, int] = (0, 0)
    """Of probes and of metrics."""

    @property
    def user(self) -> str:
        """Under which it writes."""
        return f"system:serviceaccount:{self.place.control}:operator"

    @property
    def process_id(self) -> int:
        """Of the present process."""
        assert self.process is not None
        return self.process.pid

    @property
    def gateway_signer(self) -> Signer:
        """Return what makes tokens that kernel hosts take for the gateway's."""
        return Signer(GATEWAY_KEY, self.gateway_key)

    def start(self) -> None:
        """Start it, without waiting. Its name in the lease is always the same, as a pod keeps its name."""
        self.ports = (free_port(), free_port())
        keys = {"operator.key": self.folder / "operator.key", "gateway.pub": self.folder / "gateway.pub"}
        if not keys["operator.key"].exists():
            keys["operator.key"].write_text(generate_private_key())
            keys["gateway.pub"].write_text(public_key_of(self.gateway_key))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CARREL_", "KUBERNETES_"))},
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("operator", "kernel-image")),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "CARREL_NAMESPACE": self.place.control,
            "CARREL_POD_NAME": "operator-0",
            "CARREL_SESSION_NAMESPACE": self.place.sessions,
            "CARREL_OPERATOR_PRIVATE_KEY_FILE": str(keys["operator.key"]),
            "CARREL_GATEWAY_PUBLIC_KEY_FILE": str(keys["gateway.pub"]),
            "CARREL_PROBE_ADDRESS": self.address,
            "CARREL_POD_IP": self.address,
            "CARREL_REACH_PORT": "0",
            "CARREL_PROBE_PORT": str(self.ports[0]),
            "CARREL_METRICS_PORT": str(self.ports[1]),
            "CARREL_LOG_LEVEL": "warning",
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "carrel_operator"], env=environment, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until it leads and watches."""
        assert self.process is not None
        probe = f"http://{self.address}:{self.ports[0]}/readyz"

        def leads() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (
                    httpx.get(probe, trust_env=False).status_code == 200 and self.metric("carrel_operator_leader") == 1
                )
            return False

        try:
            wait_for(leads, self.process)
        except (RuntimeError, TimeoutError) as error:
            raise RuntimeError(f"{error}:\n{self.log()[-4000:]}") from error

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the present samples of this name that have these labels.

        Raises
        ------
        httpx.TransportError
            It does not answer.
        """
        text = httpx.get(f"http://{self.address}:{self.ports[1]}/metrics", trust_env=False).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    def kill(self) -> None:
        """End it without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it politely; it gives the lease back."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def log(self) -> str:
        """Return what it wrote."""
        return (self.folder / "log").read_text(errors="replace")


@contextlib.contextmanager
def operator_process(cluster: Cluster, kernel_image: str) -> Iterator[OperatorProcess]:
    """Have namespaces, rights and keys, and a running operator; all is gone afterwards."""
    suffix = secrets.token_hex(4)
    place = Deployed(f"carrel-bench-{suffix}", f"carrel-bench-{suffix}-s", f"bench-{suffix}", kernel_image)
    _install_definitions(cluster)
    for name in (place.control, place.sessions):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    cluster.apply(*rights(place))
    with tempfile.TemporaryDirectory(prefix="carrel-operator-") as folder:
        operator = OperatorProcess(place, Path(folder))
        if isinstance(cluster, BareCluster):  # the node is this host
            operator.address = cluster.node_address
        kubeconfig_of(cluster, place.control, "operator", operator.folder / "kubeconfig")
        try:
            operator.start()
            operator.wait_ready()
            yield operator
        finally:
            operator.stop()
            _remove(cluster, place)


def _install_definitions(cluster: Cluster) -> None:
    """Bring the working tree's definitions; Helm, which may have brought others, takes over what it finds."""
    crds = str(ROOT / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", crds)
    found = (f"crd/{name}.carrel.dev" for name in DEFINITIONS)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *found)


def _remove(cluster: Cluster, place: Deployed) -> None:
    """Take everything away, and wait for the pods: nodes that are not real end with their program."""
    for name in (place.sessions, place.control):
        cluster.kubectl("delete", "namespace", name, "--timeout=600s", timeout=620)
    cluster.kubectl("delete", "clusterrole,clusterrolebinding", place.control)
    for item in cluster.get("sessionclasses")["items"]:
        if item["metadata"]["name"].startswith(place.class_name):
            cluster.kubectl("delete", "sessionclass", item["metadata"]["name"])
