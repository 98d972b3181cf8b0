"""The operator brings any world to rest as people want it: the short, seeded run of `tests/support/convergence`.

The long one is `tests/soak/test_convergence.py`.
"""

from __future__ import annotations

from hypothesis import settings
from tests.support.convergence import Convergence

TestConvergence = Convergence.TestCase
TestConvergence.settings = settings(max_examples=25, stateful_step_count=25, derandomize=True)
