"""How a kernel host is started as a child: its command, its environment, its user. Pure but for one trial run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from carrel_gateway.executors.folders import Account, Folders

NOBODY: Final = 65534
"""The unprivileged user and group of every Linux and macOS system's own convention (`nobody`)."""

PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""All that a kernel inherits of the gateway's environment: never a provider's key or a database's address."""

_TRIAL: Final = "import sys, importlib.util as u, carrel_kernel, msgspec; sys.exit(u.find_spec('ipykernel') is None)"
"""That sources and installed packages can be read; importing all that a host does would make every start wait."""
_TRIAL_SECONDS: Final = 60


def environment(folders: Folders) -> dict[str, str]:
    """Return the environment of a host; an allow-list, so that no secret of the gateway's is in it."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    home = str(folders.home)
    named = {"HOME": home, "MPLCONFIGDIR": f"{home}/.matplotlib", "IPYTHONDIR": f"{home}/.ipython", "USER": "carrel"}
    return {**passed, **named, **python_path(), "LOGNAME": "carrel", "PYTHONUNBUFFERED": "1"}


def python_path() -> dict[str, str]:
    """Return what the interpreter must be told to find the kernel host, which may run from a source tree."""
    roots: set[str] = set()
    for package in ("carrel_kernel", "carrel_wire"):
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations:
            roots.add(str(Path(spec.submodule_search_locations[0]).resolve().parent))
    return {"PYTHONPATH": os.pathsep.join(sorted(roots))} if roots else {}


def command(
    *,
    socket: Path,
    host_id: str,
    keys: Path,
    workspaces: Path,
    preload: str,
    allowed_imports: str,
    orphan_seconds: float,
) -> list[str]:
    """Return the command line of a host."""
    return [
        sys.executable,
        *("-m", "carrel_kernel"),
        *("--listen", f"unix:{socket}"),
        *("--host-id", host_id),
        *("--keys", str(keys)),
        *("--workspace", str(workspaces)),
        *("--folder-at-bind", "yes"),
        *("--preload", preload),
        *("--allowed-imports", allowed_imports),
        *("--parent-pid", str(os.getpid())),  # the host itself may be too late to see whose child it is
        *("--orphan-timeout", f"{orphan_seconds:g}"),
    ]


def account_for_hosts(data_dir: Path) -> tuple[Account | None, str | None]:
    """Return the account that hosts run as, and why it is the gateway's own where it should not be; blocking.

    A gateway of an ordinary user has no choice. One of root drops to `nobody`, if that user can run this interpreter
    and reach the data folder.
    """
    if os.geteuid() != 0:
        return None, None
    account = Account(NOBODY, NOBODY)
    blocked = [str(parent) for parent in data_dir.parents if parent.exists() and not parent.stat().st_mode & 0o001]
    if blocked:
        return None, "an unprivileged user cannot reach the data folder; set CARREL_DATA_DIR to one it can pass to"
    if not _can_run(account):
        return None, "an unprivileged user cannot run this Python interpreter; install it where every user may read it"
    return account, None


def _can_run(account: Account) -> bool:
    trial = [sys.executable, "-c", _TRIAL]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONDONTWRITEBYTECODE": "1", **python_path()}
    try:
        done = subprocess.run(  # noqa: S603  this interpreter, fixed arguments
            trial,
            env=environment,
            cwd="/",
            user=account.uid,
            group=account.gid,
            extra_groups=(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
