"""Threads of numerical libraries: one while modules are imported to be forked, the session's share afterwards.

Libraries read their variables when they are loaded. In a forked kernel they have been loaded already, so they are told
through threadpoolctl too.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "POLARS_MAX_THREADS",
)


_WHILE_IMPORTING: Final = {
    **dict.fromkeys(VARIABLES, "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's second allocator, which is not in use
}


def forbid() -> None:
    """Let libraries that are imported from now on start no threads."""
    os.environ.update(_WHILE_IMPORTING)


def forget() -> None:
    """Undo `forbid` for libraries that are not imported yet."""
    for name in _WHILE_IMPORTING:
        os.environ.pop(name, None)


def use(count: int) -> None:
    """Let the libraries that are loaded already use so many threads."""
    if "numpy" in sys.modules:
        with suppress(ImportError):  # without it nothing has been loaded ahead
            from threadpoolctl import threadpool_limits  # noqa: PLC0415  it looks for loaded libraries

            threadpool_limits(limits=count)
