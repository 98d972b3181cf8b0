"""A cluster that somebody gives to the tests by naming its kubeconfig in CARREL_TEST_KUBECONFIG.

Its current context must be one that is plainly for tests. Images are not loaded: the cluster must have them, or
CARREL_TEST_LOAD_IMAGE must name a program that brings an archive there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.provider.base import Cluster, KubectlError, ProviderError

VARIABLE: Final = "CARREL_TEST_KUBECONFIG"
LOADER_VARIABLE: Final = "CARREL_TEST_LOAD_IMAGE"
KNOWN_CONTEXTS: Final = ("hostcluster", "kind-carrel", "k3d-carrel", "carrel-test")
"""Contexts that tests may use; a name may go on after a hyphen, as in `carrel-test-7`."""


class NamedCluster(Cluster):
    """See the module."""

    name = "the cluster of CARREL_TEST_KUBECONFIG"

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        super().__init__(kubeconfig, kubectl)
        refuse_unknown_context(self.kubectl("config", "current-context").strip())
        addresses = self.get("nodes")["items"][0]["status"]["addresses"]
        self.node_address = next(one["address"] for one in addresses if one["type"] == "InternalIP")

    def load_image(self, archive: Path) -> None:
        """Run the program that CARREL_TEST_LOAD_IMAGE names with the archive as its last argument."""
        loader = os.environ.get(LOADER_VARIABLE)
        if not loader:
            raise ProviderError(
                f"no way to bring {archive.name} into the cluster: set {LOADER_VARIABLE} to a program that takes an "
                "archive, such as `kind load image-archive --name NAME`"
            )
        done = subprocess.run([*shlex.split(loader), str(archive)], capture_output=True, text=True)
        if done.returncode:
            raise ProviderError(f"{loader} {archive}: {done.stderr.strip()}")


def refuse_unknown_context(context: str) -> None:
    """Raise unless a context is known to be for tests.

    Raises
    ------
    ProviderError
        It is not.
    """
    if not any(context == known or context.startswith(f"{known}-") for known in KNOWN_CONTEXTS):
        raise ProviderError(
            f"kube context {context!r} is not known to be for tests: its name must be, or begin with, one of "
            f"{', '.join(KNOWN_CONTEXTS)}"
        )


def find() -> NamedCluster | str:
    """Return the cluster that the environment names, or why there is none.

    Raises
    ------
    ProviderError
        One is named that cannot be used: falling through to another cluster would surprise.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return f"{VARIABLE} is not set"
    kubeconfig, kubectl = Path(named).expanduser(), shutil.which("kubectl")
    if not kubeconfig.is_file():
        raise ProviderError(f"{VARIABLE} names {kubeconfig}, which is not a file")
    if kubectl is None:
        raise ProviderError("kubectl must be on PATH to use a cluster by its kubeconfig")
    try:
        return NamedCluster(kubeconfig, Path(kubectl))
    except KubectlError as error:
        raise ProviderError(f"the cluster of {kubeconfig} does not answer: {error}") from error
