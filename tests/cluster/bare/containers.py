"""The first process of a pod's container, as this host sees it: to be stopped or killed as no API would do it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.cluster.bare import api
from tests.cluster.bare.processes import recorded
from tests.cluster.bare.shell import ClusterError


def pid_of(pod: dict[str, Any]) -> int:
    """Return the id of the process in the only container of a pod's document.

    Raises
    ------
    ClusterError
        It does not run.
    """
    (container,) = pod["status"]["containerStatuses"]
    name = str(container.get("containerID", "")).rpartition("/")[2]
    for line in api.ctr("tasks", "list").splitlines():
        task, pid, state = line.split()
        if task == name and state == "RUNNING":
            return int(pid)
    raise ClusterError(f"container {name} does not run")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still meanwhile; it goes on afterwards, if it is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def api_server_away() -> Iterator[None]:
    """Have the cluster's API server stand still meanwhile: it takes connections and answers none."""
    pid, lives = recorded("kube-apiserver")
    if not lives:
        raise ClusterError("the API server does not run")
    with stopped(pid):
        yield
