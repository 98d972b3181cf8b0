"""The cluster of the bare host (tests/cluster/bare): needs root and Go, nothing else."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from tests.cluster.bare import api
from tests.cluster.bare.layout import AUDIT, NODE_IP, STATE
from tests.cluster.bare.lifecycle import down, locked, up
from tests.cluster.bare.programs import binary
from tests.cluster.bare.shell import ClusterError
from tests.cluster.provider.base import Cluster, ProviderError


class BareCluster(Cluster):
    """See the module."""

    name = "the bare host"
    node_address = NODE_IP

    def _subcommand(self) -> tuple[str, ...]:
        return ("kubectl",)

    def audit_log(self) -> Path | None:
        """Return the file; none where the cluster was started by a version that had none."""
        return AUDIT if AUDIT.exists() else None

    def load_image(self, archive: Path) -> None:
        """Import the archive into containerd, unless this very file was imported before."""
        try:
            api.load(archive)
        except ClusterError as error:
            raise ProviderError(str(error)) from error


def missing() -> str | None:
    """Return why there can be no cluster on this host; None where there can."""
    if platform.system() != "Linux":
        return "a cluster on the bare host needs Linux"
    if os.geteuid():
        return "a cluster on the bare host needs root"
    if shutil.which("go") is None:
        return "a cluster on the bare host needs Go, to build Kubernetes"
    if shutil.which("apt-get") is None:
        return "a cluster on the bare host needs apt, for containerd and runc"
    return None


def find() -> BareCluster | str:
    """Return the cluster, started if need be, or why there is none.

    Raises
    ------
    ProviderError
        It could be there, and does not start.
    """
    if reason := missing():
        return reason
    try:
        with locked():
            return BareCluster(up(), binary())
    except ClusterError as error:
        raise ProviderError(str(error)) from error


def delete() -> bool:
    """End the cluster and remove everything of it; tell whether there was one.

    Raises
    ------
    ProviderError
        There is one, and this user cannot remove it.
    """
    if not STATE.exists():
        return False
    if os.geteuid():
        raise ProviderError(f"the cluster of {STATE} was made by root: run make cluster-down as root to remove it")
    try:
        with locked():
            down()
    except ClusterError as error:
        raise ProviderError(str(error)) from error
    return True
