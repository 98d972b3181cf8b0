"""Ids of everything that is stored: UUIDv7, so that they sort by the time they were made. Source: RFC 9562, 5.7."""

from __future__ import annotations

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """Return an id that nobody had before, greater than all that this process made before."""
    return UUID(int=uuid_utils.uuid7().int)
