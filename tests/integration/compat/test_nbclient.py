"""nbclient's own test suite, unchanged, with all of its kernels on a kernel host.

Its wheel has no tests, so its source archive is taken, of the version and with the hashes of the lock file.

Plan
- Every test passes but two, which cannot, with their reason. Each of them runs apart: one leaves threads behind that
  fail in others. The host's own counters say that the kernels were its own.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

import pytest
from tests.integration.compat.remote import run_suite, started
from tests.integration.kernel.host import ROOT, Host

CACHE: Final = ROOT / "build" / "suites"
TESTS: Final = 127
LOOP_SCOPE: Final = "--override-ini=asyncio_default_fixture_loop_scope=function"
"""What newer versions of pytest-asyncio warn about when it is not said, and warnings are errors there."""
KERNELS: Final = 60
"""What it starts at least."""
EXPLAINED: Final = ("test_parallel_notebooks", "test_async_parallel_notebooks")
"""Tests that fail: they tell their kernels in their own environment in which folder to meet. A remote kernel has its
session's environment, not that of a program which uses it."""
MISSING: Final = "NBEXECUTE_TEST_PARALLEL_TMPDIR"
SECONDS: Final = 400
"""The suite takes one minute of two idle cores, of which ten seconds are endless loops that it interrupts."""


def fetch() -> Path:
    """Return the unpacked source archive, fetched when it is not there yet.

    Raises
    ------
    subprocess.CalledProcessError
        It cannot be had, or is not what the lock file names.
    """
    (pin,) = re.findall(
        r"^nbclient==\S+(?: \\\n    --hash=\S+)+$", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE
    )
    name = pin.split()[0].replace("==", "-")
    if not (CACHE / name / "PKG-INFO").exists():  # the last file of the archive
        CACHE.mkdir(parents=True, exist_ok=True)
        requirements = CACHE / f"{name}.txt"
        requirements.write_text(pin)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        source_only = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, *source_only, "-r", str(requirements), "-d", str(CACHE)], check=True, timeout=100)
        with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return CACHE / name


@pytest.mark.timeout(SECONDS + 300)
async def test_every_test_passes_but_the_explained(tmp_path: Path) -> None:
    suite = await asyncio.to_thread(fetch)
    async with Host.running(tmp_path) as host:
        shutil.copytree(suite / "tests" / "files", host.workspace, dirs_exist_ok=True)
        await host.bind(env={"IPYKERNEL_CELL_NAME": "<IPY-INPUT>"})  # as the suite sets it for local kernels
        others = [f"--deselect=tests/test_client.py::{name}" for name in EXPLAINED]
        results = await run_suite(host, tmp_path / "suite", suite, LOOP_SCOPE, *others, seconds=SECONDS)
        assert results.failed == {}
        assert results.skipped == set()
        assert len(results.passed) == TESTS - len(EXPLAINED)
        assert await started(host, "forked") >= KERNELS
        results = {
            name: await run_suite(
                host, tmp_path / name, suite, LOOP_SCOPE, f"tests/test_client.py::{name}", seconds=100
            )
            for name in EXPLAINED
        }
        threads, tasks = EXPLAINED
        assert MISSING in results[tasks].failed.get(f"test_client::{tasks}", ""), results[tasks]
        assert results[threads].passed <= {f"test_client::{threads}"}, (
            "it waits two seconds for its threads, and may not see how they end"
        )
