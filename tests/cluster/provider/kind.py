"""A kind cluster named `carrel`, where kind, kubectl and a running container engine are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.provider.base import Cluster, ProviderError
from tools.go_tools import cache_folder

NAME: Final = "carrel"
CREATE_SECONDS: Final = 600


class KindCluster(Cluster):
    """See the module."""

    name = "kind"

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        super().__init__(kubeconfig, kubectl)
        addresses = self.get("nodes")["items"][0]["status"]["addresses"]
        self.node_address = next(one["address"] for one in addresses if one["type"] == "InternalIP")

    def load_image(self, archive: Path) -> None:
        """Import the archive into every node."""
        _kind("load", "image-archive", str(archive), "--name", NAME)


def _kind(*arguments: str) -> str:
    done = subprocess.run(["kind", *arguments], capture_output=True, text=True, timeout=CREATE_SECONDS)
    if done.returncode:
        raise ProviderError(f"kind {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def missing() -> str | None:
    """Return why kind cannot be used here; None where it can."""
    for program in ("kind", "kubectl"):
        if shutil.which(program) is None:
            return f"{program} is not on PATH"
    for engine in ("docker", "podman"):
        if shutil.which(engine) and subprocess.run([engine, "info"], capture_output=True).returncode == 0:
            return None
    return "no container engine runs"


def find() -> KindCluster | str:
    """Return the cluster, made if need be, or why there is none."""
    if reason := missing():
        return reason
    kubeconfig, kubectl = cache_folder() / "kind" / "kubeconfig", shutil.which("kubectl")
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if NAME not in _kind("get", "clusters").split():
        _kind("create", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig), "--wait", "120s")
    _kind("export", "kubeconfig", "--name", NAME, "--kubeconfig", str(kubeconfig))
    return KindCluster(kubeconfig, Path(kubectl or "kubectl"))


def delete() -> bool:
    """Delete the cluster; tell whether there was one."""
    if missing() is not None or NAME not in _kind("get", "clusters").split():
        return False
    _kind("delete", "cluster", "--name", NAME)
    return True
