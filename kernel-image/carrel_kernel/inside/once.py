"""What ipykernel does for each cell though it has been done, or is the same for every cell: done once.

ipykernel transforms a cell's code to learn whether it awaits something, and IPython transforms it again to run it.
ipykernel looks up what IPython's method for that accepts. It sets the handler of interrupts through the enumerations of
`signal`. There is no setting for any of it, so each is replaced where it is looked up.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from ipykernel import ipkernel

set_handler: Final[Callable[[int, Any], Any]] = importlib.import_module("_signal").signal
"""`signal.signal` without making members of its enumerations of numbers, which takes longer than the rest.

It takes functions, and what it has returned."""


def know_parameters() -> None:
    """Let ipykernel look at the parameters of a function once."""
    name = "_accepts_parameters"
    look: Callable[[Any, list[str]], dict[str, Any]] = getattr(ipkernel, name)

    @lru_cache(maxsize=8)
    def known(function: Any, names: tuple[str, ...]) -> dict[str, Any]:
        return look(function, list(names))

    def accepts(method: Any, names: Sequence[str]) -> dict[str, Any]:
        return known(getattr(method, "__func__", method), tuple(names))

    setattr(ipkernel, name, accepts)


class _Known(threading.local):
    """The code of a thread's next cell."""

    raw: str | None = None
    transformed: str = ""


class Transforming:
    """A shell's `transform_cell`, whose result serves a second time for the same cell.

    Only while all transformers are IPython's own: others may count how often they are called.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._transform = cast("Callable[[str], str]", shell.transform_cell)
        self._known = _Known()
        self._own = self._transformers()
        shell.transform_cell = self.transform_cell

    def begin(self) -> None:
        """Forget what is known: the next cell is another one, though it may read the same."""
        self._known.raw = None

    def transform_cell(self, raw_cell: str) -> str:
        """Transform a cell's code, or return what has just been made of it."""
        known = self._known
        if known.raw is not None and known.raw == raw_cell:
            known.raw = None
            return known.transformed
        transformed = self._transform(raw_cell)
        if self._transformers() == self._own:
            known.raw, known.transformed = raw_cell, transformed
        return transformed

    def _transformers(self) -> list[Any]:
        manager = self._shell.input_transformer_manager
        return [
            *manager.cleanup_transforms,
            *manager.line_transforms,
            *manager.token_transformers,
            *self._shell.input_transformers_post,
        ]
