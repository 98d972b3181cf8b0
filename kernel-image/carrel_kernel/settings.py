"""Settings of the kernel host, from flags or `CARREL_KERNEL_*` variables; a flag wins over its variable.

Plain dataclass and argparse: the kernel image carries no settings library. What a session decides (environment, limits)
comes with bind and is not here.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "CARREL_KERNEL_"
_MIB: Final = 1024 * 1024


def _setting(help_: str, default: Any = MISSING, *, parse: Any = str) -> Any:
    metadata = {"help": help_, "parse": parse}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _modules(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise argparse.ArgumentTypeError("must be names of modules with commas between them, as `numpy,pandas`")
    return names


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError("must be yes or no")
    return text == "yes"


def _listen(text: str) -> str:
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        return text
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and host and port.isdigit() and int(port) < 65536:
        return text
    raise argparse.ArgumentTypeError("must be unix:/path/of.sock or tcp:ADDRESS:PORT")


def _file(text: str) -> Path | None:
    return Path(text) if text else None


def _closed_listen(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    with suppress(ValueError):
        if kind == "tcp" and port.isdigit() and int(port) < 65536:
            return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    raise argparse.ArgumentTypeError("must be tcp:ADDRESS:PORT with an IP address, or empty")


# ruff: noqa: RUF009  `_setting` returns a dataclass field, as `field` itself does
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that is decided when the host starts; sizes in bytes, times in seconds."""

    host_id: str = _setting("Identity of this host: the audience of its tokens (the pod's UID, or a local host's id).")
    keys: Path = _setting("Key set (JSON) whose tokens are accepted; read again when it changes.", parse=Path)
    listen: str = _setting("Where to listen: unix:/path.sock or tcp:ADDRESS:PORT.", "tcp:0.0.0.0:8888", parse=_listen)
    closed_listen: tuple[str, int] | None = _setting(
        "Where connections are taken and closed without a word: tcp:ADDRESS:PORT, for a port that a network policy "
        "closes, so that one can see whether it does; empty: nowhere.",
        "",
        parse=_closed_listen,
    )
    authorities: Path | None = _setting(
        "File (PEM) of certificate authorities that kernels trust beside the system's; empty: none.", "", parse=_file
    )
    workspace: Path = _setting("Folder that kernels work in.", Path("/workspace"), parse=Path)
    folder_at_bind: bool = _setting(
        "Whether bind names a folder below the workspace that is the session's (yes or no), for hosts that are started "
        "before anybody wants them.",
        "no",
        parse=_yes,
    )
    runtime_dir: Path = _setting(
        "Folder for the kernels' private sockets and caches.", Path(tempfile.gettempdir()), parse=Path
    )
    parent_pid: int = _setting(
        "Process that starts this host, which ends with it until it is bound; 0: whichever was there first.",
        0,
        parse=_whole,
    )
    orphan_timeout: float = _setting(
        "Once bound, end when no authenticated call came for so long and nothing runs; 0 means never.",
        0.0,
        parse=_not_negative,
    )
    grace_seconds: float = _setting("Time that kernels have to end after SIGTERM.", 5.0, parse=_not_negative)
    fork_server: bool = _setting(
        "Whether kernels are forked from a process that has imported everything (yes or no); Linux only.",
        "yes",
        parse=_yes,
    )
    preload: tuple[str, ...] = _setting(
        "Modules that forked kernels have imported already, with commas between them.",
        "numpy,pandas,matplotlib.pyplot,sklearn",
        parse=_modules,
    )
    allowed_imports: tuple[str, ...] = _setting(
        "Modules that cells may import, with commas between them; `standard` stands for those of data analysis. "
        "None: cells are not checked.",
        "",
        parse=_modules,
    )
    spare_kernels: int = _setting("Kernels that are kept ready for whoever wants one next.", 1, parse=_whole)
    start_seconds: float = _setting("Longest wait for a new kernel to answer.", 60.0, parse=_positive)
    hung_seconds: float = _setting(
        "Time after its deadline until a question that hangs costs the kernel.", 20.0, parse=_positive
    )
    max_kernels: int = _setting("Kernels at the same time.", 16, parse=_count)
    max_open_files: int = _setting("Files that a kernel may have open; 0: as many as the host.", 8192, parse=_whole)
    max_processes: int = _setting(
        "Processes and threads of the kernel's user, beyond which it starts none; 0: no limit.", 0, parse=_whole
    )
    max_file_bytes: int = _setting("Largest file that a kernel may write; 0: no limit.", 0, parse=_whole)
    max_queue: int = _setting("Executions that wait for one kernel.", 100, parse=_count)
    max_unacknowledged: int = _setting("Executions whose events are kept until acknowledged.", 1000, parse=_count)
    spool_bytes: int = _setting("Disk for unacknowledged events of all executions.", 1024 * _MIB, parse=_count)
    message_bytes: int = _setting(
        "Output of one message, such as a picture; what is beyond goes to a file.", 32 * _MIB, parse=_count
    )
    output_bytes: int = _setting("Output of one execution; likewise.", 64 * _MIB, parse=_count)
    session_output_bytes: int = _setting("Output of all executions since bind; likewise.", 8192 * _MIB, parse=_count)
    overflow_bytes: int = _setting("Size of that file of an execution.", 1024 * _MIB, parse=_count)
    file_bytes: int = _setting("Largest file that may be written through the API.", 1024 * _MIB, parse=_count)
    archive_bytes: int = _setting(
        "Largest content of an archive, downloaded or unpacked.", 4 * 1024 * _MIB, parse=_count
    )
    snapshot_bytes: int = _setting(
        "Variables that one snapshot may hold, and files of the workspace as much again.", 4096 * _MIB, parse=_count
    )
    snapshot_seconds: float = _setting(
        "Longest time to save or restore the variables of one kernel.", 60.0, parse=_positive
    )
    log_level: str = _setting("Least level that is logged: debug, info, warning or error.", "info")


def _default(item: Field[Any], environment: Mapping[str, str]) -> tuple[Any, bool]:
    """Return the value without a flag, and whether a flag is needed."""
    text = environment.get(PREFIX + item.name.upper())
    if text is not None:
        return text, False  # argparse runs string defaults through `type`
    return (None, True) if item.default is MISSING else (item.default, False)


def load(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings.

    Raises
    ------
    SystemExit
        A value is missing or wrong; what is expected has been printed to stderr.
    """
    values = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(
        prog="carrel_kernel", description="Runs the kernels of one session.", allow_abbrev=False
    )
    for item in fields(Settings):
        default, required = _default(item, values)
        parser.add_argument(
            "--" + item.name.replace("_", "-"),
            type=item.metadata["parse"],
            default=default,
            required=required,
            help=f"{item.metadata['help']} ({PREFIX}{item.name.upper()})",
        )
    return Settings(**vars(parser.parse_args(arguments)))
