"""jupyter_kernel_test, unchanged, against kernels of the host.

Plan
- All 13 of its tests pass and none is skipped, on a forked kernel and on a fresh interpreter; the host's own counters
  say that the kernels were its own and of that kind.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.compat.remote import run_suite, started
from tests.integration.kernel.host import Host

SUITE = Path(__file__).parent / "ipython_suite.py"
TESTS = 13


@pytest.mark.parametrize(("fork_server", "origin"), [("yes", "forked"), ("no", "fresh")])
async def test_every_test_passes(tmp_path: Path, fork_server: str, origin: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    async with Host.running(tmp_path, f"--fork-server={fork_server}") as host:
        await host.bind()
        results = await run_suite(host, tmp_path / "suite", tmp_path, str(SUITE), seconds=100)
        assert results.failed == {}
        assert results.skipped == set()
        assert len(results.passed) == TESTS
        assert await started(host, origin) == 3  # `main`, and one for each of the suite's two classes
