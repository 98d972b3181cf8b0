"""Nobody raises their own rights (attack 26): the long run of `tests/support/escalation`.

It has other examples each time, and goes on for `CARREL_SOAK_SECONDS`, in rounds of fifty examples of eighty steps.
Before that, checks are broken on purpose, and each must be found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.soak.conftest import Record
from tests.support.broken_checks import BREAKS
from tests.support.escalation import machine_of
from tests.support.escalation_stage import Stage, stage

EXAMPLES, STEPS = 50, 80
HUNT = settings(
    max_examples=400, stateful_step_count=STEPS, database=None, phases=[Phase.generate], report_multiple_bugs=False
)


@pytest.fixture
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("escalation") / "data") as made:
        yield made


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_check_is_found(staged: Stage, name: str, monkeypatch: pytest.MonkeyPatch):
    BREAKS[name](monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine_of(staged), settings=HUNT)
    print(f"found after {staged.steps} calls")


@pytest.mark.timeout(7200)
def test_nobody_raises_their_own_rights(staged: Stage, seconds: float, record: Record):
    end, rounds = time.monotonic() + seconds, 0
    long = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, database=None)
    while time.monotonic() < end:
        run_state_machine_as_test(machine_of(staged), settings=long)
        rounds += 1
    done = (
        "Two tenants with people of every role, whose keys, logins, tickets, teams, shares and invitations are used in "
        "any order; after each step nobody may more than they were given."
    )
    rows = [
        ("Examples", str(rounds * EXAMPLES)),
        ("Calls", str(staged.steps)),
        ("Let through", ", ".join(f"{name}: {count}" for name, count in sorted(staged.accepted.items()))),
        ("Rights that were not given", "none"),
    ]
    record("Rights: calls in any order", done, rows)
