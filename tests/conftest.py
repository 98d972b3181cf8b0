"""Fixtures of every suite: real servers, started when a test first asks for one."""

from __future__ import annotations

import hypothesis
from tests.support.servers import object_store, postgres, postgres_database, postgres_url, redis_url

__all__ = ["object_store", "postgres", "postgres_database", "postgres_url", "redis_url"]

# A slow machine is no failure: examples have no deadline, and a seed that failed is printed.
hypothesis.settings.register_profile(
    "carrel", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("carrel")
