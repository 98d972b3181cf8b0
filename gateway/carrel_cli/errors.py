"""What ends a command with a message instead of a result.

::

    CommandError
    ├── Usage          exit code 2   what was asked for cannot be done as it was said
    └── NoServer       exit code 3   no gateway could be reached or started
"""

from __future__ import annotations

from typing import ClassVar


class CommandError(Exception):
    """Base; the message is for the person at the terminal."""

    exit_code: ClassVar[int] = 1


class Usage(CommandError):
    exit_code = 2


class NoServer(CommandError):
    exit_code = 3
