"""Tests of the command line may have a home of their own."""

from __future__ import annotations

from tests.support.homes import home

__all__ = ["home"]
