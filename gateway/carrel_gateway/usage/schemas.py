"""Bodies of the routes of usage."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from carrel_gateway.usage.repository import MICROS, Used
from carrel_gateway.web.fields import ReplyBody


class UsageRow(ReplyBody):
    """What some calls of models add up to; a key is null where they were not told apart by it."""

    day: date | None
    user_id: UUID | None
    session_id: UUID | None
    model: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float
    """US dollars, of the calls whose price is known."""
    unpriced_calls: int
    """Calls whose price is not known: their cost is not in `cost`."""

    @classmethod
    def of(cls, used: Used) -> UsageRow:
        """Return it as it is told."""
        return cls(
            day=date.fromisoformat(used.day) if used.day else None,
            user_id=used.user_id,
            session_id=used.session_id,
            model=used.model,
            calls=used.calls,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cost=used.cost_micros / MICROS,
            unpriced_calls=used.unpriced,
        )


class UsageReport(ReplyBody):
    """Sums of some days, which are in UTC and both included."""

    since: date
    until: date
    items: list[UsageRow]
