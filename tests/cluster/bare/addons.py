"""What a cluster has besides its own components: DNS for pods, and volumes for claims."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.bare.api import kubectl, load
from tests.cluster.bare.archive import write_archive
from tests.cluster.bare.layout import ADMIN, COREDNS_IMAGE, STATE
from tests.cluster.bare.processes import Components
from tools.go_tools import ensure


def apply_dns() -> None:
    """Load CoreDNS and apply its objects."""
    load(write_archive(ensure("coredns"), "/coredns", COREDNS_IMAGE, STATE / "coredns.tar"))
    kubectl("apply", "-f", Path(__file__).with_name("coredns.yaml"))


def wait_for_dns() -> None:
    """Wait until CoreDNS answers."""
    kubectl("--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")


def start_volumes(components: Components) -> None:
    """Start the provisioner of the default StorageClass and wait for the class."""
    module = "tests.cluster.bare.volumes"
    root = Path(__file__).resolve().parents[3]
    components.start("volumes", sys.executable, "-m", module, ADMIN, STATE / "volumes", env={"PYTHONPATH": str(root)})
    components.wait("storage class", lambda: "/local\n" in kubectl("get", "storageclasses", "-o", "name"), 30)
