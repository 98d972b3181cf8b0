"""A gateway as its own process on a loopback port, with a fresh data folder and real kernel hosts.

It is forked from a process that has imported it before (`warm`), because importing is most of a start; with `cold`, or
a variable that libraries may read when they are imported, it is `python -m carrel_gateway`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import httpx
from tests.support import contract, warm
from tests.support.warm_gateways import OWN

ROOT = Path(__file__).parents[2]
SOURCES = [str(ROOT / name) for name in ("operator", "gateway", "kernel-image")]
START_SECONDS = 90.0
DEADLINE_SECONDS = 60.0

SALES = (
    "month,region,units,price\n"
    + "\n".join(
        f"2025-{month:02d},{region},{units},{price}"
        for month in range(1, 13)
        for region, units, price in [("North", 40 + 3 * month, 9.5), ("South", 30 + month, 11.0), ("East", 20, 8.25)]
    )
    + "\n"
)


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a child: this project's sources, no developer's settings, nothing ready ahead."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    home = os.environ.get("HOME", "/root")
    fixed = {"PYTHONPATH": os.pathsep.join(SOURCES), "HOME": home}
    fixed |= {"CARREL_SPARE_KERNEL_HOST": "false", "CARREL_KERNEL_PRELOAD": ""}
    return {**own, **fixed, **settings}


@dataclass
class Gateway:
    url: str
    key: str
    data_dir: Path
    process: subprocess.Popen[bytes] | warm.Forked

    def client(self, *, key: str | None = "own", **options) -> httpx.Client:
        presented = self.key if key == "own" else key
        headers = {"Authorization": f"Bearer {presented}"} if presented is not None else {}
        hooks = {"response": [contract.check]}  # every answer that a test gets is one that the API declares
        return httpx.Client(base_url=self.url, headers=headers, timeout=90.0, event_hooks=hooks, **options)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(45)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdin.close()
            self.process.stdout.close()


def start(data_dir: Path, *, port: int = 0, name: str | None = None, cold: bool = False, **settings: str) -> Gateway:
    """Start one; `name` is that of its log beside the data folder, for several on one folder."""
    log_file = data_dir.parent / f"{name or data_dir.name}.log"
    with log_file.open("ab") as log:
        arguments = ["--child", "--port", str(port), "--data-dir", str(data_dir)]
        process = _process(arguments, log.fileno(), data_dir.parent, settings, cold=cold)
    lines: Queue[bytes] = Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_SECONDS)
    except Empty:
        line = b""
    if not line:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        raise RuntimeError(log_file.read_text()[-4000:])
    said = json.loads(line)
    return Gateway(said["url"].replace("localhost", "127.0.0.1"), said["key"], data_dir, process)


def _process(
    arguments: list[str], log: int, folder: Path, settings: dict[str, str], *, cold: bool
) -> subprocess.Popen[bytes] | warm.Forked:
    if not cold and sys.platform == "linux" and all(setting.startswith(OWN) for setting in settings):
        return warm.start(arguments, log=log, folder=folder, environment=environment(**settings))
    return subprocess.Popen(
        [sys.executable, "-m", "carrel_gateway", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=folder,
        env=environment(**settings),
    )


@contextmanager
def gateway(data_dir: Path, **settings: str) -> Iterator[Gateway]:
    started = start(data_dir, **settings)
    try:
        yield started
    finally:
        started.stop()


def server_events(response):
    event = {}
    for line in response.iter_lines():
        if not line:
            if "data" in event:
                yield {**json.loads(event["data"]), "_id": event.get("id"), "_event": event.get("event")}
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def until(found):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)
