"""What the bare-host cluster itself asks of its API server and of containerd."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.bare.layout import ADMIN, API, CONTAINERD, LOADED, PKI
from tests.cluster.bare.programs import binary
from tests.cluster.bare.shell import ClusterError, run


def kubectl(*arguments: str | Path) -> str:
    """Return what kubectl prints, as the administrator."""
    return run(binary(), "kubectl", f"--kubeconfig={ADMIN}", *arguments)


def ctr(*arguments: str | Path) -> str:
    """Return what containerd's client prints, in the namespace of the kubelet."""
    return run("ctr", "--address", CONTAINERD, "--namespace", "k8s.io", *arguments)


def load(archive: Path) -> None:
    """Import a docker or OCI archive, unless this very file was imported before.

    Raises
    ------
    ClusterError
        It is not there, or no archive of images.
    """
    if not archive.is_file():
        raise ClusterError(f"{archive} is not a file")
    stat = archive.stat()
    mark = LOADED / archive.name
    state = f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    if mark.exists() and mark.read_text() == state:
        return
    ctr("images", "import", archive)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(state)


def api_answers() -> bool:
    """Tell whether the API server serves."""
    try:
        context = ssl.create_default_context(cafile=PKI / "ca.crt")
        with urllib.request.urlopen(f"{API}/readyz", context=context, timeout=2):
            return True
    except urllib.error.HTTPError as refused:
        return refused.code == 401  # no anonymous access: the server is there
    except OSError:
        return False


def node_ready() -> bool:
    """Tell whether the node is Ready."""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    conditions = (one for node in nodes for one in node["status"]["conditions"])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
