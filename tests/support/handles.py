"""Looks at every step of an event loop: the longest, in CPU time of its thread, which load hardly changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Longest:
    """The step that took most."""

    seconds: float = 0.0
    what: str = ""
    steps: int = 0


@contextmanager
def measured() -> Generator[Longest]:
    """Measure the steps of the loop that runs this, while the block does."""
    found = Longest()
    handle: Any = asyncio.Handle
    run = handle._run

    def timed(self: Any) -> None:
        began = time.thread_time()
        run(self)
        seconds = time.thread_time() - began
        found.steps += 1
        if seconds > found.seconds:
            found.seconds, found.what = seconds, repr(self)

    handle._run = timed
    try:
        yield found
    finally:
        handle._run = run
