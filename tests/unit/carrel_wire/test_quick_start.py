"""Imports at the start of a program.

Plan: within, nothing is collected; afterwards it is again, also when an import failed, and what was made within is left
alone. In a process of its own, because what is frozen stays frozen.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc
from carrel_wire.quick_start import importing
try:
    with importing():
        assert not gc.isenabled()
        made = [[] for _ in range(5000)]
        {last}
except ImportError:
    pass
assert gc.isenabled()
assert gc.get_freeze_count() > 5000
"""


@pytest.mark.parametrize("last", ["import json", "import no_such_module"])
def test_garbage_is_looked_for_afterwards(last):
    subprocess.run([sys.executable, "-c", PROGRAM.format(last=last)], check=True)
