"""Imports the parts of a program at its start without looking for garbage: there is none, and the looks add a sixth.

Nothing here is about what programs do afterwards, but that their collections leave the imported modules alone.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def importing() -> Generator[None]:
    """Put off garbage collection, and spare later ones what has been made within.

    What was imported stays until the end; without the freeze, each full collection would look at all of it again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
