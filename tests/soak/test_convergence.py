"""The operator brings any world to rest: the long run of `tests/support/convergence`, each time with other examples.

It goes on for `CARREL_SOAK_SECONDS`, in rounds of a hundred examples of a hundred steps.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.soak.conftest import Record
from tests.support.convergence import Convergence

EXAMPLES, STEPS = 100, 100


@pytest.mark.timeout(7200)
def test_any_world_comes_to_rest_as_people_want_it(seconds: float, record: Record):
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        run_state_machine_as_test(
            Convergence, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, database=None)
        )
        rounds += 1
    done = "Sessions, pools, pods, the watch and the operator's process disturbed in random order, in virtual time."
    record(
        "Convergence of the operator", done, [("Examples", str(rounds * EXAMPLES)), ("Steps each, at most", str(STEPS))]
    )
