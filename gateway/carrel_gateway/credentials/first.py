"""The administrator's first key, of a gateway that nobody could use otherwise: made once in the life of a database.

Its row has an id that is known, so that of several gateways that start at the same time one makes it, and so that it is
not made again after it was revoked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import ProcessContext
from carrel_gateway.credentials import repository
from carrel_gateway.credentials.repository import ApiKey
from carrel_gateway.identity.presented import Kind, digest_of, hint_of, make
from carrel_gateway.identity.service import default_principal

FIRST_KEY_ID: Final = UUID("00000000-0000-7000-8000-000000000003")


async def make_first_key(context: ProcessContext) -> str | None:
    """Return the key, which is stored as a hash only; none where it was made before."""
    owner = default_principal()
    key = make(Kind.KEY, owner.tenant_id)
    row = ApiKey(
        id=FIRST_KEY_ID,
        user_id=owner.user_id,
        maker_id=owner.user_id,
        name="first key",
        hint=hint_of(key),
        scopes=None,
        created_at=datetime.now(UTC),
        expires_at=None,
        used_at=None,
        revoked_at=None,
    )
    try:
        async with context.database.transaction(owner.tenant_id) as tx:
            if await repository.find(tx, FIRST_KEY_ID):
                return None
            await repository.add(tx, row, digest_of(key))
            await AuditService(context, owner).record(tx, Action.KEY_MADE, row.id, user=str(owner.user_id))
    except IntegrityError:  # another gateway was first
        return None
    return key
