"""Every test here has a home of its own."""

from __future__ import annotations

import pytest
from tests.support.homes import home

__all__ = ["home"]


@pytest.fixture(autouse=True)
def at_home(home):
    """Have it whether a test names it or not."""
