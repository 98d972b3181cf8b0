"""Builds the container images of the product into docker archives, once per state of what goes into them.

    python -m tools.images build kernel|gateway|operator|evaluation …      prints the path of each archive

Docker builds where it runs; elsewhere buildah does, as root, in a chroot, without any daemon. The base image is the one
that CARREL_BASE_IMAGE names, or with buildah a minimal Debian made here by debootstrap, so that no image registry is
needed. Archives lie in the cache; this does not load them anywhere: clusters do (tests/cluster/provider).
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.go_tools import cache_folder

ROOT: Final = Path(__file__).resolve().parent.parent
BASE_VARIABLE: Final = "CARREL_BASE_IMAGE"
DEBIAN_IMAGE: Final = "localhost/base:1"
DEBIAN_RELEASE: Final = "bookworm"
DEBIAN_PACKAGES: Final = "python3,ca-certificates,python3-venv"
BUILD_SECONDS: Final = 1800
BUILDAH: Final = ("buildah", "--storage-driver", "overlay")
HOST_FILES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""How this host reaches the package index; seen by the build, never part of an image."""
KEPT_ARCHIVES: Final = 2
"""Per image: the newest ones, and the one in use."""


class ImageError(Exception):
    """An image cannot be built; the message says why."""


@dataclass(frozen=True)
class Source:
    """What one image is made from."""

    dockerfile: str
    target: str | None
    inputs: tuple[str, ...]
    """Files and folders whose change makes a new image."""


SOURCES: Final = {
    "kernel": Source(
        "Dockerfile.kernel",
        None,
        (
            "requirements/kernel.txt",
            "requirements/kernel-build.txt",
            "kernel-image/carrel_wire",
            "kernel-image/carrel_kernel",
        ),
    ),
    "operator": Source(
        "Dockerfile.gateway",
        "operator",
        ("requirements/operator.txt", "kernel-image/carrel_wire", "operator/carrel_api", "operator/carrel_operator"),
    ),
    "gateway": Source(
        "Dockerfile.gateway",
        "gateway",
        (
            "requirements/gateway.txt",
            "kernel-image/carrel_wire",
            "operator/carrel_api",
            "gateway/carrel_gateway",
            "gateway/carrel_client",
            "gateway/carrel_cli",
        ),
    ),
    "evaluation": Source("tools/evaluation/Dockerfile", None, ()),
}


@dataclass(frozen=True)
class Image:
    """A built image."""

    tag: str
    archive: Path
    digest: str
    """Of what it was made from: changes when and only when the image does."""


def digest_of(name: str, base: str) -> str:
    """Return a digest of everything that goes into an image."""
    source = SOURCES[name]
    digest = hashlib.sha256(base.encode())
    for path in _files((source.dockerfile, ".dockerignore", *source.inputs)):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(inputs: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for name in inputs:
        path = ROOT / name
        if not path.exists():
            raise ImageError(f"{name} is not there")
        members = path.rglob("*") if path.is_dir() else [path]
        found += [one for one in members if one.is_file() and "__pycache__" not in one.parts]
    return sorted(found)


def build(name: str) -> Image:
    """Return an image, after building it if what it is made from has changed.

    Raises
    ------
    ImageError
        There is nothing to build it with, or the build failed.
    """
    if name not in SOURCES:
        raise ImageError(f"unknown image {name!r}: must be one of {', '.join(sorted(SOURCES))}")
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    tag = f"localhost/carrel-{name}:dev"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = _engine()
        base = engine.base()
        digest = digest_of(name, base)
        archive = folder / f"{name}-{digest}.tar"
        if not archive.exists():
            sys.stderr.write(f"building {tag}\n")
            new = archive.with_suffix(".new")
            engine.build(SOURCES[name], tag, base, new)
            new.rename(archive)
        _forget_old(folder, name, archive)
    return Image(tag, archive, digest)


def _forget_old(folder: Path, name: str, current: Path) -> None:
    archives = sorted(folder.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in [one for one in archives if one != current][KEPT_ARCHIVES - 1 :]:
        old.unlink()


class Docker:
    """Builds with a running Docker."""

    def base(self) -> str:
        """Return the base image: that of the Dockerfiles unless the environment names one."""
        return os.environ.get(BASE_VARIABLE, "")

    def build(self, source: Source, tag: str, base: str, archive: Path) -> None:
        """Build one image and save it."""
        options = ["--build-arg", f"BASE_IMAGE={base}"] if base else []
        target = ["--target", source.target] if source.target else []
        _run("docker", "build", *options, *target, "--file", source.dockerfile, "--tag", tag, ".")
        _run("docker", "save", "--output", str(archive), tag)


class Buildah:
    """Builds with buildah, as root, without a daemon."""

    def base(self) -> str:
        """Return the base image: the one that the environment names, or a minimal Debian, made once."""
        named = os.environ.get(BASE_VARIABLE)
        if named:
            return named
        if subprocess.run([*BUILDAH, "inspect", "--type", "image", DEBIAN_IMAGE], capture_output=True).returncode:
            self._make_debian()
        return DEBIAN_IMAGE

    def _make_debian(self) -> None:
        if shutil.which("debootstrap") is None:
            raise ImageError(f"debootstrap must be installed, or {BASE_VARIABLE} must name a base image")
        sys.stderr.write(f"making {DEBIAN_IMAGE} with debootstrap (once)\n")
        with tempfile.TemporaryDirectory() as folder:
            _run("debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN_RELEASE, folder)
            for leftover in (*Path(folder, "var/cache/apt").rglob("*"), *Path(folder, "var/lib/apt/lists").rglob("*")):
                if leftover.is_file():
                    leftover.unlink()
            container = _run(*BUILDAH, "from", "scratch").strip()
            try:
                _run(*BUILDAH, "add", container, folder, "/")
                _run(*BUILDAH, "commit", "--quiet", container, DEBIAN_IMAGE)
            finally:
                _run(*BUILDAH, "rm", container)

    def build(self, source: Source, tag: str, base: str, archive: Path) -> None:
        """Build one image and write its archive."""
        mounts = [word for path in HOST_FILES if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]
        target = ["--target", source.target] if source.target else []
        how = ["--layers", "--isolation", "chroot", "--network", "host", "--build-arg", f"BASE_IMAGE={base}"]
        _run(*BUILDAH, "bud", *how, *mounts, *target, "--file", source.dockerfile, "--tag", tag, ".")
        archive.unlink(missing_ok=True)  # buildah refuses to write over an archive
        _run(*BUILDAH, "push", "--quiet", tag, f"docker-archive:{archive}:{tag}")


def _engine() -> Docker | Buildah:
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return Docker()
    if shutil.which("buildah") and os.geteuid() == 0:
        return Buildah()
    raise ImageError("images are built with a running Docker, or with buildah as root; here is neither")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{' '.join(command)}: took longer than {BUILD_SECONDS} s") from error
    if done.returncode:
        raise ImageError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}".strip())
    return done.stdout


def main() -> int:
    """Build the named images, or all, and print the paths of their archives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("names", nargs="*", metavar="IMAGE")
    arguments = parser.parse_args()
    try:
        for name in arguments.names or sorted(SOURCES):
            print(build(name).archive)
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
