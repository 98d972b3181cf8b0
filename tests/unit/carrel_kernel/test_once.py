"""What is done once for a cell, or once for all.

Plan
- A cell is transformed once, and a cell that reads the same again when it begins; foreign transformers are called as
  often as without.
- What ipykernel is told of a function's parameters is what it finds itself, for functions and methods.
- The quick way to set a handler sets it and returns the one before.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from ipykernel import ipkernel
from IPython.core.interactiveshell import InteractiveShell

from carrel_kernel.inside import once


class Counted(InteractiveShell):
    """A shell that counts."""

    calls = 0

    def transform_cell(self, raw_cell: str) -> str:
        self.calls += 1
        return super().transform_cell(raw_cell)


@pytest.fixture
def shell() -> Iterator[Counted]:
    shell = Counted()
    shell.history_manager.enabled = False
    yield shell
    shell._atexit_once()


def test_a_cell_is_transformed_once(shell: Counted) -> None:
    transforming = once.Transforming(shell)
    for number in (1, 2):
        transforming.begin()
        assert (
            shell.transform_cell("%time 1")
            == shell.transform_cell("%time 1")
            == Counted.transform_cell(shell, "%time 1")
        )
        assert shell.calls == 2 * number  # the last one is this test's own
    transforming.begin()
    first, second = shell.transform_cell("a = 1"), shell.transform_cell("b = 1")
    assert (first, second) == ("a = 1\n", "b = 1\n")


def test_the_next_cell_is_transformed_though_it_reads_the_same(shell: Counted) -> None:
    transforming = once.Transforming(shell)
    for _ in range(2):
        transforming.begin()
        shell.transform_cell("1")  # a cell that awaits something is not transformed again
    assert shell.calls == 2


@pytest.mark.parametrize("which", ["cleanup_transforms", "line_transforms", "token_transformers", "post"])
def test_foreign_transformers_are_called_as_without(shell: Counted, which: str) -> None:
    transforming = once.Transforming(shell)
    foreign = (lambda lines: lines) if which != "token_transformers" else _Nothing
    (shell.input_transformers_post if which == "post" else getattr(shell.input_transformer_manager, which)).append(
        foreign
    )
    transforming.begin()
    shell.transform_cell("1")
    shell.transform_cell("1")
    assert shell.calls == 2


class _Nothing:
    priority = 1

    @classmethod
    def find(cls, tokens_by_line: Any) -> None:
        """Find nothing to transform."""


def test_parameters_are_what_ipykernel_finds(shell: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    look = ipkernel._accepts_parameters
    looked: list[Any] = []
    monkeypatch.setattr(ipkernel, "_accepts_parameters", lambda *args: looked.append(args) or look(*args))
    once.know_parameters()
    names = ["cell_id", "cell_meta"]
    for function in (shell.run_cell_async, shell.run_cell_async, len, lambda **_: None, lambda cell_id: cell_id):
        assert ipkernel._accepts_parameters(function, names) == look(function, names)
    assert len(looked) == 4


def test_a_handler_is_set() -> None:
    assert inspect.isbuiltin(once.set_handler)
    before = signal.getsignal(signal.SIGUSR1)
    for kept in (signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, kept)
        handler = once.set_handler(signal.SIGUSR1, signal.default_int_handler)
        assert signal.getsignal(signal.SIGUSR1) is signal.default_int_handler
        once.set_handler(signal.SIGUSR1, handler)
        assert signal.getsignal(signal.SIGUSR1) == kept
    signal.signal(signal.SIGUSR1, before)
