"""Fixtures of every suite: real servers, started when a test first asks for one. And what makes collecting quick."""

from __future__ import annotations

import sys
from collections.abc import Generator

import hypothesis
import pytest
from tests.support.blob_servers import azure, gcs
from tests.support.servers import object_store, postgres, postgres_database, postgres_url, redis_url

from carrel_wire.quick_start import importing

__all__ = ["azure", "gcs", "object_store", "postgres", "postgres_database", "postgres_url", "redis_url"]

# A slow machine is no failure: examples have no deadline, and a seed that failed is printed.
hypothesis.settings.register_profile(
    "carrel", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("carrel")

# jsonschema's optional check of IRIs, which nothing here has: importing it compiles 38 grammars, for seconds.
sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests without looking for garbage, and leave what was imported out of every later look."""
    with importing():
        return (yield)
