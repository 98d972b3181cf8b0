"""What the audit log tells of: a closed list, so that it can be filtered by and counted."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """`<kind of target>.<what was done to it>`."""

    SESSION_ARCHIVED = "session.archived"
    SESSION_DELETED = "session.deleted"
    AUDIT_EXPORTED = "audit.exported"

    @property
    def group(self) -> str:
        """The kind of target."""
        return self.value.partition(".")[0]
