"""The programs of the bare-host cluster: packages of Debian, and one Go binary.

The binary is built once per state of its source and kept in a cache under the digest of that source.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Final

from tests.cluster.bare.layout import CACHE, KUBERNETES, SOURCE
from tests.cluster.bare.shell import run, succeeds

PACKAGES: Final = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "ebtables",
    "conntrack",
    "openssl",
)


def install_packages() -> None:
    """Install what Debian provides, where it is missing."""
    missing = [name for name in PACKAGES if not succeeds("dpkg", "-s", name)]
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-q", env=quiet)
        run("apt-get", "install", "-qy", "--no-install-recommends", *missing, env=quiet)


def binary() -> Path:
    """Return the path of the built binary: every component, kubectl included, is a subcommand of it."""
    return _build_folder() / "hostcluster"


def pause() -> Path:
    """Return the path of the static program that holds a pod's namespaces open."""
    return _build_folder() / "pause"


def _build_folder() -> Path:
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in (".go", ".mod", ".sum"):
            digest.update(path.read_bytes())
    folder = CACHE / digest.hexdigest()[:16]
    if not (folder / "hostcluster").exists():
        _build(folder)
    return folder


def _build(folder: Path) -> None:
    sys.stderr.write("hostcluster: building Kubernetes from its Go modules (once, about 5 minutes)\n")
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    version = {
        "k8s.io/component-base/version.gitVersion": KUBERNETES,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
    }
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in version.items())])
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0"}
    for target, package in (("pause", "./pause"), ("hostcluster", ".")):
        built = folder / f"{target}.new"
        run("go", "build", "-trimpath", "-ldflags", flags, "-o", built, package, cwd=SOURCE, env=environment)
        built.rename(folder / target)
