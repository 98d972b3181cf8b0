"""Every action of the audit log is on its page."""

from __future__ import annotations

import re
from pathlib import Path

from carrel_gateway.audit.actions import Action

PAGE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "audit.md"


def test_every_action_is_on_the_page() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {name for line in rows for name in re.findall(r"`([a-z-]+\.[a-z-]+)`", line)}
    assert named == {action.value for action in Action}
