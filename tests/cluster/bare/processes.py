"""The processes of the bare-host cluster: started once, known by id and start time, ended by id only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.cluster.bare.layout import LOGS, PIDS, STATE
from tests.cluster.bare.shell import ClusterError, write

CGROUPS: Final = Path("/sys/fs/cgroup")
PODS: Final = STATE / "kubelet" / "pods"
"""The kubelet's folder: one for each of its pods, named by the pod's UID."""


def began_at(pid: int) -> str:
    """Return what tells one process from a later one with the same id; empty if there is none (or only its corpse)."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc(5): field 3); none where there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Components:
    """What one `up` started: waiting for anything ends as soon as one of them has ended."""

    def __init__(self) -> None:
        self._started: dict[str, int] = {}

    def start(self, name: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        """Start a component in a session of its own, with its output in the log of its name.

        It outlives this process, hence no `Popen`, which is for children that are waited for.
        """
        words = [str(part) for part in command]
        program = shutil.which(words[0])
        if program is None:
            raise ClusterError(f"{words[0]} is not on PATH")
        pid = os.posix_spawn(
            program,
            words,
            {**os.environ, **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(LOGS / f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self._started[name] = pid
        write(PIDS / name, f"{pid} {began_at(pid)}")

    def wait(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until something is ready.

        Raises
        ------
        ClusterError
            A component ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            for name, pid in self._started.items():
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    last = (LOGS / f"{name}.log").read_text(errors="replace").strip().rpartition("\n")[2]
                    raise ClusterError(f"{name} ended with {os.waitstatus_to_exitcode(status)}: {last}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} not ready after {seconds:.0f} s; see {LOGS}")
            time.sleep(0.1)


def recorded(name: str) -> tuple[int, bool]:
    """Return the id of a component that was started, and whether that very process lives."""
    pid, _, began = (PIDS / name).read_text().strip().partition(" ")
    return int(pid), bool(began) and began_at(int(pid)) == began


def lives(name: str) -> bool:
    """Tell whether a component was started and lives."""
    return (PIDS / name).exists() and recorded(name)[1]


def end(pids: set[int], patience: float = 5.0) -> None:
    """End processes by id: politely, and after `patience` seconds not."""
    began = {pid: began_at(pid) for pid in pids}
    for step, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        left = {pid for pid in pids if began[pid] and began_at(pid) == began[pid]}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, step)
        while any(began_at(pid) == began[pid] for pid in left) and time.monotonic() < deadline:
            time.sleep(0.02)


def session(leader: int) -> set[int]:
    """Return what a component left running: containerd's shims keep its session, even when it died before them."""
    members: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and int(fields[3]) == leader:
            members.add(int(entry.name))
    return members


def end_pods(cgroups: Path = CGROUPS, pods: Path = PODS) -> bool:
    """End every process in the cgroups of the kubelet's pods and the shims above them, then remove the cgroups.

    Returns
    -------
    bool
        Whether pods that are not of this kubelet run on this host: another Kubernetes is here.
    """
    own = {f"pod{folder.name}" for folder in pods.glob("*")}
    for _ in range(50):
        pids = _members([path for path in _pod_cgroups(cgroups) if own.intersection(path.parts)])
        if not pids:
            break
        parents = {int(fields[1]) for pid in pids if (fields := _stat(pid))}
        end(pids, patience=0)
        end({pid for pid in parents - pids if _is_shim(pid)}, patience=0)
        time.sleep(0.05)
    others = bool(_members(_pod_cgroups(cgroups)))
    for path in sorted(_pod_cgroups(cgroups), key=lambda path: -len(path.parts)):
        if not others or own.intersection(path.parts):
            with contextlib.suppress(OSError):
                path.rmdir()
    return others


def _pod_cgroups(cgroups: Path) -> list[Path]:
    # kubelets of other clusters may use systemd's names
    roots = [root for name in ("kubepods", "kubepods.slice") for at in ("", "*/") for root in cgroups.glob(at + name)]
    return [path for root in roots for path in (root, *root.rglob("*")) if path.is_dir()]


def _members(cgroups: list[Path]) -> set[int]:
    """Return the living processes of cgroups; one that was removed meanwhile has none."""
    pids: set[int] = set()
    for path in cgroups:
        with contextlib.suppress(OSError):
            pids |= {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
    return {pid for pid in pids if began_at(pid)}


def _is_shim(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("containerd-shim")
    except OSError:
        return False
