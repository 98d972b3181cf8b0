"""The pages of the agent and of the history say all that there is: each type, field, intent, code and limit.

Plan: event types with their fields and the statuses of cells on the history's page; the analyst's intents, the codes
with which the loop ends a run, and the settings of its limits on the agent's page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from carrel_gateway.agents import decide, loop
from carrel_gateway.agents.models.analyst.request import Intent
from carrel_wire.events import Outcome
from carrel_wire.log import LogPayload

REFERENCE = Path("docs/reference")
HISTORY = (REFERENCE / "history.md").read_text("utf-8")
AGENT = (REFERENCE / "agent.md").read_text("utf-8")


def row_of(page: str, name: str) -> str:
    """Return the row of a table that begins with this name, alone or in a list."""
    return next((line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]), "")


@pytest.mark.parametrize("payload", get_args(LogPayload), ids=lambda payload: payload.__name__)
def test_every_event_type_with_its_fields(payload: type[msgspec.Struct]) -> None:
    row = row_of(HISTORY, str(payload.__struct_config__.tag))
    assert [name for name in payload.__struct_fields__ if f"`{name}`" not in row] == []


def test_every_status_of_a_cell() -> None:
    statuses = [*get_args(Outcome), "intended", "running", "outcome_unknown"]
    assert [status for status in statuses if f"`{status}`" not in HISTORY] == []


def test_every_intent_of_the_analyst() -> None:
    assert [intent for intent in get_args(Intent) if not row_of(AGENT, intent)] == []


def test_every_code_that_the_loop_ends_a_run_with() -> None:
    sources = "".join(Path(module.__file__ or "").read_text("utf-8") for module in (decide, loop))
    codes = re.findall(r'Finish\(\s*"(?:failed|cancelled)",\s*"(\w+)"', sources)
    assert len(codes) >= 5
    assert [code for code in codes if not row_of(AGENT, code)] == []


def test_every_limit_and_its_default() -> None:
    limits = decide.Limits()
    assert f"| {limits.max_steps} |" in row_of_setting("CARREL_AGENT_MAX_STEPS")
    assert f"| {limits.max_retries} |" in row_of_setting("AGENT_MAX_RETRIES")
    assert f"| {limits.timeout_seconds:g} |" in row_of_setting("AGENT_TIMEOUT_SECONDS")


def row_of_setting(name: str) -> str:
    return next(line for line in AGENT.splitlines() if line.startswith("|") and f"| `{name}` |" in line)
