"""Says what was used: to each of their own, and to whoever may read the tenant of everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput
from carrel_gateway.identity.rights import Right
from carrel_gateway.usage import repository
from carrel_gateway.usage.repository import Filter, Key, Used, entry

__all__ = ["MAX_ROWS", "Filter", "Key", "UsageService", "Used", "entry"]

MAX_ROWS: Final = 5000
"""Of one answer."""


class UsageService:
    """The ledger of one tenant, as one caller may see it."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._principal = principal

    async def own(self, wanted: Filter, by: Sequence[Key]) -> list[Used]:
        """Return what the caller has used.

        Raises
        ------
        InvalidInput
            There are too many rows.
        """
        return await self._sums(replace(wanted, user_id=self._principal.user_id), by)

    async def of_tenant(self, wanted: Filter, by: Sequence[Key]) -> list[Used]:
        """Return what everybody in the tenant has used.

        Raises
        ------
        PermissionDenied
            Without the right to read the tenant's.
        InvalidInput
            There are too many rows.
        """
        self._principal.require(Right.TENANT_READ)
        return await self._sums(wanted, by)

    async def _sums(self, wanted: Filter, by: Sequence[Key]) -> list[Used]:
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.sums(tx, wanted, by, limit=MAX_ROWS + 1)
        if len(found) > MAX_ROWS:
            raise InvalidInput(f"more than {MAX_ROWS} rows: ask for fewer days, or tell fewer things apart with `by`")
        return found
