"""Keeps other processes of the same user out of this process's memory and environment, where the system can."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4
"""Source: prctl(2). Not dumpable: /proc/PID/mem and environ are the superuser's alone, and no debugger attaches."""


def forbid_memory_access() -> None:
    """Make this process not dumpable; does nothing where there is no such call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
