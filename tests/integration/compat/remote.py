"""Runs a test suite of the Jupyter family, unchanged, with all of its kernels on a kernel host.

A kernelspec whose program is the bridge (`tests.support.bridge`) takes the place of IPython's own; the suite runs in a
pytest of its own and is judged by the report that it writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.integration.kernel.host import ROOT, SESSION, Host

KERNEL_NAMES: Final = ("python", "python3")
"""The names that suites use for IPython's kernel."""


@dataclass
class Results:
    """Names of tests by how they ended, and why those failed that did."""

    passed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, report: Path) -> Results:
        """Read a report in JUnit's form; a test of several parts fails when one of them does."""
        found = cls()
        for case in ET.parse(report).getroot().iter("testcase"):
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            bad = [part for part in case if part.tag in ("failure", "error")]
            if bad:
                found.failed[name] = bad[0].get("message", "")
            elif case.find("skipped") is not None:
                found.skipped.add(name)
            else:
                found.passed.add(name)
        found.passed -= found.failed.keys() | found.skipped
        return found


def install_kernels(host: Host, folder: Path) -> dict[str, str]:
    """Write kernelspecs into a new folder, and return the variables by which programs find them, and them alone."""
    where = {"socket": str(host.socket), "host_id": host.host_id, "session": SESSION}
    where |= {"kid": host.signer.kid, "private_key": host.private_key}
    folder.mkdir()
    config = folder / "bridge.json"
    config.write_text(json.dumps(where))
    spec = {
        "argv": [sys.executable, str(ROOT / "tests" / "support" / "bridge.py"), "{connection_file}"],
        "display_name": "Python on a kernel host",
        "language": "python",
        "interrupt_mode": "message",
        "env": {"CARREL_BRIDGE": str(config), "PYTHONPATH": str(ROOT / "kernel-image")},
    }
    for name in KERNEL_NAMES:
        (folder / "kernels" / name).mkdir(parents=True)
        (folder / "kernels" / name / "kernel.json").write_text(json.dumps(spec))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    return {**own, "JUPYTER_PATH": str(folder), "JUPYTER_PREFER_ENV_PATH": "0", "IPYTHONDIR": str(folder / "ipython")}


async def run_suite(host: Host, folder: Path, suite: Path, *flags: str, seconds: float) -> Results:
    """Run the pytest suite in a folder with its own settings, and return how each of its tests ended.

    What is written on the way is in another folder, which is made.

    Raises
    ------
    TimeoutError
        It did not end in time.
    """
    report, log = folder / "report.xml", folder / "suite.log"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # suites call programs of their packages by name
    environment = {**os.environ, **install_kernels(host, folder), "PATH": path, **_quick_imports(folder / "quick")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *flags]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=suite, env=environment, stdout=output, stderr=asyncio.subprocess.STDOUT
        )
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert report.exists(), log.read_text()
    return Results.read(report)


def _quick_imports(folder: Path) -> dict[str, str]:
    """Hide what nothing in a suite uses and its programs import at once: see `tests/conftest.py`."""
    folder.mkdir()
    (folder / "rfc3987_syntax.py").write_text("raise ImportError")
    return {"PYTHONPATH": os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)}


async def started(host: Host, origin: str) -> int:
    """Return how many kernels the host has started that were `forked` or `fresh`."""
    async with host.request("GET", "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    counts = (line for line in lines if line.startswith("carrel_kernel_starts_total{") and f'"{origin}"' in line)
    return sum(int(float(line.split()[-1])) for line in counts)
