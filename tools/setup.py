"""Sets a fresh machine up for work on Carrel; run by every target of the Makefile, quick when there is nothing to do.

    python3 -m tools.setup           virtual environment with the locked packages, and Carrel itself (editable)
    python3 -m tools.setup system    also the Debian packages that tests start as servers (root only)

Uses the standard library alone, because it runs before anything is installed. It does not build Go tools or images:
`tools.go_tools` and `tools.images` do, when they are first needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = ROOT / ".venv"
LOCK: Final = ROOT / "requirements" / "dev.txt"
BOOTSTRAP: Final = ROOT / "requirements" / "bootstrap.txt"
STAMP: Final = "carrel-setup"
"""File in the environment, written last: the interpreter it was made with, and the digest of what was installed."""
SOURCES: Final = ("gateway", "kernel-image", "operator")
STARTED: Final = """
import importlib
from carrel_kernel.inside.zygote import OF_EVERY_KERNEL
own = "carrel_cli.main carrel_gateway.serving carrel_kernel.program carrel_kernel.inside.app"
others = "carrel_kernel.inside.rehearsal alembic.command pandas matplotlib.pyplot"
for name in (*own.split(), *OF_EVERY_KERNEL, *others.split()):
    importlib.import_module(name)
"""
"""Imports what starts of the gateway and of kernels do."""
UV_SECONDS: Final = 300
"""uv has been seen to hang where pip went through; after this long pip does it instead."""

DEBIAN: Final = (
    "postgresql",
    "redis-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "ebtables",
    "conntrack",
    "openssl",
    "buildah",
    "debootstrap",
    "util-linux",
)
BROWSER: Final = ("chromium",)
"""Apart, because Ubuntu has it as a snap only: without a candidate apt would install nothing at all."""


def interpreter() -> str:
    """Return the version and place of the interpreter; within an environment, those of the one it was made with."""
    return f"{sys.version_info[0]}.{sys.version_info[1]} {sys.base_prefix}"


def _digest() -> str:
    """Return what is installed: the locks and the build settings."""
    digest = hashlib.sha256()
    for path in (LOCK, BOOTSTRAP, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _run(*command: str | Path, timeout: float | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, timeout=timeout)


def environment(folder: Path = ENVIRONMENT) -> None:
    """Make the virtual environment hold exactly the locked packages.

    One that was left half-made, or was made with another interpreter, is made anew; a complete one is updated.
    """
    stamp = folder / STAMP
    wanted = [interpreter(), _digest()]
    noted = stamp.read_text().splitlines() if stamp.exists() else []
    if noted == wanted:
        return
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(map(str, sys.version_info[:2]))
        raise SystemExit(f"Carrel needs Python 3.11, 3.12 or 3.13; this is {found}. Try: make PYTHON=python3.12 …")
    sys.stderr.write("setting up .venv (once)\n")
    stamp.unlink(missing_ok=True)  # what is interrupted from here on is made anew the next time
    if noted[:1] != wanted[:1]:
        _create(folder)
    _install(folder)
    stamp.write_text("\n".join(wanted))


def _create(folder: Path) -> None:
    if Path(sys.prefix) == folder:
        raise SystemExit(f"{folder} must be made anew, which its own Python cannot do: run python3 -m tools.setup")
    try:
        venv.create(folder, clear=True, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"cannot make {folder}: on Debian, apt-get install python3-venv, then again") from error


def _install(folder: Path) -> None:
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--require-hashes", "-r", BOOTSTRAP)
    try:
        uv = (folder / "bin" / "uv", "pip", "install", "--quiet", "--python", python)
        _run(*uv, "--require-hashes", "-r", LOCK, timeout=UV_SECONDS)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        sys.stderr.write("uv did not get through; trying pip\n")
        _run(*pip, "--require-hashes", "-r", LOCK)
    _run(*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    bytecode(python, "-c", STARTED)


def bytecode(python: Path, *arguments: str | Path) -> None:
    """Run an interpreter that keeps the bytecode of what it imports, for every user of this machine to read.

    uv leaves packages without, and a kernel host of root's runs as nobody, who could not keep any: each start would
    compile everything. What cannot be imported is told by what needs it.
    """
    keeping = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([python, *arguments], cwd=ROOT, env=keeping, umask=0o022, stderr=subprocess.DEVNULL)


def system_packages() -> None:
    """Install the Debian packages that are missing; what cannot be had is told, and the tests that need it skip."""
    dpkg, apt = shutil.which("dpkg-query"), shutil.which("apt-get")
    if dpkg is None or apt is None:
        sys.stderr.write("not a Debian machine: tests skip the servers that are not on PATH\n")
        return
    missing = [name for name in (*DEBIAN, *BROWSER) if not _installed(dpkg, name)]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.stderr.write(f"not root: install for all tests: apt-get install {' '.join(missing)}\n")
        return
    sys.stderr.write(f"installing {' '.join(missing)} (once)\n")
    _apt(apt, "update", "-qq")  # where it fails, an older list of packages may do
    for group in (DEBIAN, BROWSER):
        wanted = [name for name in missing if name in group]
        if wanted and not _apt(apt, "install", "-qqy", "--no-install-recommends", *wanted):
            sys.stderr.write(f"could not install {' '.join(wanted)}; going on: tests that need them say so\n")


def _apt(*command: str) -> bool:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return done.returncode == 0


def _installed(dpkg: str, name: str) -> bool:
    asked = subprocess.run([dpkg, "-W", "-f", "${Status}", name], capture_output=True, text=True)
    return asked.stdout == "install ok installed"


if __name__ == "__main__":
    environment()
    bytecode(ENVIRONMENT / "bin" / "python", "-m", "compileall", "-q", *SOURCES)
    if "system" in sys.argv[1:]:
        system_packages()
