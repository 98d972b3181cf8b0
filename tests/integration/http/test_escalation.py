"""Nobody raises their own rights, by any sequence of calls (attack 26): the short run of `tests/support/escalation`.

Plan: examples from one seed, and from the next ones until all that the machine is for was let through; a check that is
broken on purpose is found. The long run, with more of those, is `tests/soak/test_escalation.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.support.broken_checks import BREAKS
from tests.support.escalation import machine_of
from tests.support.escalation_stage import Stage, stage

SHORT = settings(max_examples=10, stateful_step_count=40, database=None, report_multiple_bugs=False)
SEEDS = range(26, 31)
"""Several: what Hypothesis draws from a seed depends on which modules are loaded too."""
ESSENTIAL = {"make_key", "change_user", "invite", "accept_invitation", "log_in", "use_ticket", "put_member"}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("escalation") / "data") as made:
        yield made


def test_nobody_raises_their_own_rights(staged: Stage) -> None:
    for number in SEEDS:
        run_state_machine_as_test(seed(number)(machine_of(staged)), settings=SHORT)
        missing = ESSENTIAL - staged.accepted.keys()
        if not missing:
            return
    pytest.fail(f"never let through: {missing}")


def test_a_broken_check_is_found(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS["scopes_count_for_nothing"](monkeypatch)
    hunt = settings(SHORT, phases=[Phase.generate])

    def search() -> None:
        for number in SEEDS:
            run_state_machine_as_test(seed(number)(machine_of(staged)), settings=hunt)

    with pytest.raises(AssertionError, match="has more than was given"):
        search()
