"""Series of the audit log."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

ENTRIES: Final = Counter(
    "carrel_audit_entries", "Entries written to tenants' audit logs, by kind of target.", ["group"]
)
