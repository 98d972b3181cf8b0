"""Checks of this machine: Python, packages, folders, ports."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from carrel_gateway.doctor.findings import Missing
from carrel_gateway.settings import Settings
from carrel_gateway.sources.choosing import Kind

OLDEST: Final = (3, 11)
NEWEST: Final = (3, 13)
_KERNEL: Final = ("ipykernel", "zmq", "cloudpickle", "numpy", "pandas", "matplotlib", "carrel_kernel")


def python(version: tuple[int, int, int] = sys.version_info[:3]) -> str:
    """Return the version of Python."""
    said = ".".join(str(part) for part in version)
    if not OLDEST <= version[:2] <= NEWEST:
        raise Missing(
            f"Python {said}",
            f"install Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}, and Carrel with it "
            "(python3.12 -m venv …; pip install carrel)",
        )
    return f"Python {said}"


def packages(settings: Settings) -> str:
    """Return what the parts that the settings name need, all of which is there."""
    wanted: dict[str, str] = {}
    if settings.executor_type == "local":
        wanted |= dict.fromkeys(_KERNEL, "carrel")
        modules = (name.strip() for name in settings.kernel_preload.split(","))
        wanted |= {name: name.partition(".")[0] for name in modules if name not in {"", *wanted}}
    else:
        wanted["kubernetes"] = "carrel[operator]"
    if not settings.is_embedded:
        wanted["asyncpg"] = "carrel[db]"
    if settings.redis_url:
        wanted["redis"] = "carrel[db]"
    absent = [name for name in wanted if not _is_there(name)]
    if absent:
        install = sorted({f"'{wanted[name]}'" for name in absent})
        raise Missing(f"not installed: {', '.join(absent)}", f"{sys.executable} -m pip install {' '.join(install)}")
    return f"{len(wanted)} packages of the parts in use"


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a package that it lies in is not there, or it is no name
        return False


def folder(path: Path, variable: str) -> str:
    """Return that the folder can be written to, or made."""
    try:
        nearest = next(one for one in (path, *path.parents) if one.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if nearest == path:
            with tempfile.TemporaryFile(dir=path, prefix=".doctor-"):
                return f"{path} can be written to"
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise Missing(
            f"{path} cannot be {'written to' if path.exists() else 'made'}: {error.strerror}",
            f"give the folder to user {os.getuid()} (chown), or set {variable} to another one",
        ) from error
    return f"{path} will be made at the first start"


def secrecy(settings: Settings) -> str:
    """Return that no file with a secret in it can be read by others."""
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    origins = [origin for name, origin in settings.found.origins.items() if name in secret]
    places = {Path(one.place) for one in origins if one.kind in {Kind.ENV_FILE, Kind.CONFIG_FILE}}
    open_ = sorted(str(path) for path in places if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    if open_:
        raise Missing(
            f"everybody on this machine can read the secrets in {', '.join(open_)}", f"chmod 600 {' '.join(open_)}"
        )
    return (
        f"{len(places)} files hold secrets, and others cannot read them" if places else "none is in a file of settings"
    )


def port(settings: Settings) -> str:
    """Return that the gateway can listen, or listens already."""
    taken = [
        _refusal(settings.host, number)
        for number in (settings.port, settings.metrics_port)
        if number and not _is_own(settings, number)
    ]
    for refusal in taken:
        if refusal:
            raise Missing(
                refusal,
                "end the program that has it (ss -ltnp shows which), or set CARREL_PORT, CARREL_METRICS_PORT or "
                "CARREL_HOST to others",
            )
    own = " (a gateway of this data folder has it)" if _is_own(settings, settings.port) else ""
    return f"{settings.host}:{settings.port}{own}"


def _refusal(host: str, number: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), number), family=family):
            return None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        return f"cannot listen on {host}:{number}: {reason}"


def _is_own(settings: Settings, number: int) -> bool:
    try:
        told = json.loads((settings.data_dir / "server.json").read_text())
        os.kill(int(told["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return number == settings.metrics_port or str(told.get("url", "")).endswith(f":{number}")
