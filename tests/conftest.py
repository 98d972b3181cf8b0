"""Fixtures of every suite: real servers, started when a test first asks for one."""

from __future__ import annotations

from tests.support.servers import object_store, postgres, postgres_database, postgres_url, redis_url

__all__ = ["object_store", "postgres", "postgres_database", "postgres_url", "redis_url"]
