"""What a kernel keeps back of its limits, so that it can still tell of an error when one of them is met.

Of memory it keeps what the host says (`carrel_kernel.memory`, which also takes it back), of open files some itself.
"""

from __future__ import annotations

import errno
import resource
import sys
from typing import Any, Final

from carrel_kernel.inside import system

_MAX_FILES: Final = 32
"""A traceback imports modules and reads source files."""


def limit_files(most: int) -> None:
    """Let this process have at most so many files open, for good, of which some are kept back; 0: as many as now."""
    if most:
        system.lower_limit(resource.RLIMIT_NOFILE, most)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - min(_MAX_FILES, hard // 8), hard))


def tell_of_errors(shell: Any) -> None:
    """Use what was kept back before an error is shown that comes from a limit, and keep it back again afterwards."""
    show = shell.showtraceback

    def showtraceback(*args: Any, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, MemoryError):  # ZeroMQ ends the process when it gets no memory
            _raise(resource.RLIMIT_DATA)
        if not (isinstance(error, OSError) and error.errno == errno.EMFILE):
            show(*args, **kwargs)
            return
        soft = _raise(resource.RLIMIT_NOFILE)
        try:
            show(*args, **kwargs)
        finally:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))

    shell.showtraceback = showtraceback


def _raise(which: int) -> int:
    """Raise the soft limit to the hard one, and return what it was."""
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (hard, hard))
    return soft
