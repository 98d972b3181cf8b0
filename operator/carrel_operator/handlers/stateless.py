"""Storages of kopf's that store nothing and compare nothing: the operator's handlers look at levels.

kopf makes two deep copies of every object that a watch brings, to find what changed since a handler last succeeded.
With event handlers alone nobody asks for that, and it was two thirds of the operator's processor time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kopf

# ruff: noqa: ARG002 (kopf's signatures)


class NoDifferences(kopf.DiffBaseStorage):
    """Every object is as it was."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Return nothing to be compared."""
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Return that nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """No handler is ever under way."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        """Return that nothing was stored."""

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Store nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Remove nothing."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return it as it is: nothing of kopf's is in it."""
        return essence
