"""When an execution is over: by reply and idle status, and without one of them only when the kernel has gone silent."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from carrel_kernel import run as module
from carrel_kernel.executions import Execution
from carrel_kernel.family import Family
from carrel_kernel.outputs import Outputs
from carrel_kernel.run import Run
from carrel_kernel.spool import Meta, Spool


@pytest.fixture
async def run(tmp_path: Path) -> Run:
    meta = Meta(id="e", kernel_id="k", incarnation="i", session_uid="s", code="")
    execution = Execution(Spool.create(tmp_path, meta))
    return Run(execution, Outputs.__new__(Outputs), kernel_id="k", incarnation="i", family=Family(os.getpid()))


async def test_reply_and_idle_end_it_in_either_order(run: Run) -> None:
    run.on_idle()
    assert not run.done.done()
    run.on_reply({"status": "ok"})
    assert run.done.done()
    run.close()


@pytest.mark.parametrize("which", ["reply", "idle"])
async def test_one_of_them_is_enough_when_nothing_else_comes(
    run: Run, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WORDS_SECONDS", 0.01)
    if which == "reply":
        run.on_reply({"status": "ok"})
    else:
        run.on_idle()
    await run.done
    run.close()


async def test_output_waits_for_the_end_but_not_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER_SECONDS", 0.001)
    run.on_busy()
    assert not run.idle
    run.on_idle()
    run.on_message()
    assert run.idle
    assert await run.execution.wait(0, 30.0)
    assert not run.done.done()
    run.close()


async def test_output_that_still_comes_is_waited_for(run: Run) -> None:
    """A host that is behind reads the reply before the output that was sent before it."""
    run.on_reply({"status": "ok"})
    run.on_message()
    run._on_silence()
    assert not run.done.done()
    run.on_idle()
    assert run.done.done()
    run.close()


async def test_the_limit_counts_from_when_the_code_was_taken_up_or_could_have_been(run: Run) -> None:
    run._given -= 100.0
    assert run.limited_seconds(others=False) == pytest.approx(100.0 - module.SILENT_SECONDS, abs=5.0)
    assert run.limited_seconds(others=True) == 0.0  # it waits behind a client's cell, however long that is
    assert run.limited_seconds(others=False) == 0.0
    run._given -= 100.0
    run.on_busy()
    assert run.limited_seconds(others=True) < 50.0
    run.close()


async def test_the_start_is_as_early_as_the_kernel_may_have_waited_before_it_told(run: Run) -> None:
    now = time.monotonic()
    run._given = now - 100.0
    run.on_busy()
    assert run.started is not None
    assert now - module.TOLD_WITHIN_SECONDS <= run.started < time.monotonic()


async def test_the_start_is_not_before_the_code_was_given(run: Run) -> None:
    run._given = time.monotonic()
    run.on_busy()
    assert run.started is not None
    assert run.started >= run._given
