"""Makes keys and tickets, lists and revokes keys. What either is, is shown once and not stored.

Nobody gets more by a key than they have: what a key is given lies within what its maker may at this moment, by the
credential that is used, and it ends no later than that one. A key of a service account also has no more, at any time,
than whoever made it: the person, however many keys of service accounts it was made by. Where that person is not known,
what is made by it is as little anybody's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from carrel_gateway.audit.service import Action, AuditService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.credentials import repository
from carrel_gateway.credentials.repository import ApiKey
from carrel_gateway.errors import InvalidInput, NotFound, PermissionDenied, TooMany
from carrel_gateway.identity import revocations, standing
from carrel_gateway.identity.presented import Kind, digest_of, hint_of, make
from carrel_gateway.identity.rights import Right
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.paging import Cursors, Page

__all__ = ["ApiKey", "CredentialService", "NewKey", "Ticket"]

MOST_KEYS: Final = 100
"""Of one user in force: room for every program, and none for a flood."""
TICKET_SECONDS: Final = 30.0
_CURSORS: Final = Cursors[UUID]("keys", UUID)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made."""

    key: str
    row: ApiKey


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was just made."""

    ticket: str
    expires_at: datetime


class CredentialService:
    """Keys and tickets, for one principal."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._bus = context.bus
        self._principal = principal
        self._audit = AuditService(context, principal)

    async def keys(self, user_id: UUID | None = None, *, limit: int = 50, cursor: str | None = None) -> Page[ApiKey]:
        """Return one's own keys, or somebody's, newest first; also those that are not in force any more.

        Raises
        ------
        PermissionDenied
            They are somebody's, and the principal does not administer people.
        InvalidInput
            The cursor is not one that a page had.
        """
        return await self._page(self._owner(user_id), limit, cursor)

    async def service_keys(self, *, limit: int = 50, cursor: str | None = None) -> Page[ApiKey]:
        """Return the keys of all service accounts of the tenant, as `keys` does.

        Raises
        ------
        PermissionDenied
            The principal does not administer people.
        InvalidInput
            The cursor is not one that a page had.
        """
        self._principal.require(Right.PEOPLE_ADMIN)
        return await self._page(None, limit, cursor)

    async def key(self, key_id: UUID) -> ApiKey:
        """Return a key of one's own or, administering people, of somebody.

        Raises
        ------
        NotFound
            There is no such key.
        PermissionDenied
            It is somebody's.
        """
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            return await self._key(tx, key_id)

    async def make_key(
        self,
        name: str,
        *,
        scopes: list[Right] | None = None,
        expires_at: datetime | None = None,
        user_id: UUID | None = None,
    ) -> NewKey:
        """Make a key for oneself, or for a service account.

        Parameters
        ----------
        scopes
            What it may at most; without them all that its owner may, or as much as the key that is used now.
        expires_at
            Without it the key does not expire, or when the key that is used now does.

        Raises
        ------
        PermissionDenied
            It would be given more than the principal has, or to another person.
        NotFound
            There is no such user.
        InvalidInput
            It would have expired already.
        TooMany
            The owner has very many.
        """
        owner = self._owner(user_id)
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidInput("`expires_at` is over; name a time to come", code="expired")
        key = make(Kind.KEY, self._principal.tenant_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            kind = await repository.lock_owner(tx, owner)
            if kind is None:
                raise NotFound("there is no such user", code="user_not_found")
            if owner != self._principal.user_id and kind != "service":
                raise PermissionDenied("people make their keys themselves; this is not a service account")
            if await repository.count_in_force(tx, owner) >= MOST_KEYS:
                raise TooMany(f"there are {MOST_KEYS} keys in force; revoke one first", code="too_many_keys")
            given, ends_at, maker = await self._bounded(tx, owner, scopes, expires_at)
            row = ApiKey(
                id=new_id(),
                user_id=owner,
                maker_id=maker,
                name=name,
                hint=hint_of(key),
                scopes=given,
                created_at=datetime.now(UTC),
                expires_at=ends_at,
                used_at=None,
                revoked_at=None,
            )
            await repository.add(tx, row, digest_of(key))
            await self._audit.record(tx, Action.KEY_MADE, row.id, user=str(owner), name=name, scopes=given)
        return NewKey(key, row)

    async def revoke_key(self, key_id: UUID, expected: Callable[[ApiKey], None] | None = None) -> None:
        """Revoke a key of one's own or, administering people, of somebody; it is of no use at once.

        Parameters
        ----------
        expected
            Raises when the key is not as the caller has seen it.

        Raises
        ------
        NotFound
            There is no such key.
        PermissionDenied
            It is somebody's.
        """
        async with self._database.transaction(self._principal.tenant_id) as tx:
            found = await self._key(tx, key_id, lock=True)
            if expected:
                expected(found)
            if await repository.revoke(tx, key_id):
                tx.after_commit(lambda: revocations.announce(self._bus, tx.tenant_id, key_id))
                await self._audit.record(tx, Action.KEY_REVOKED, key_id, user=str(found.user_id), name=found.name)

    async def revoke_all(self, user_id: UUID | None = None) -> int:
        """Revoke all keys of one's own in the tenant, or somebody's, but the one in use; return how many.

        Raises
        ------
        PermissionDenied
            Without the right to revoke keys, or of somebody's without administering people.
        """
        self._principal.require(Right.KEYS_WRITE)
        user_id = self._owner(user_id)
        async with self._database.transaction(self._principal.tenant_id) as tx:
            gone = await repository.revoke_all(tx, user_id, but=self._principal.credential_id)
            if gone:
                tx.after_commit(lambda: revocations.announce(self._bus, tx.tenant_id, *gone))
                await self._audit.record(tx, Action.KEY_ALL_REVOKED, user_id, keys=len(gone))
        return len(gone)

    async def make_ticket(self) -> Ticket:
        """Make a ticket that lets one WebSocket in, as the principal and with the rights of the credential in use."""
        ticket, principal = make(Kind.TICKET, self._principal.tenant_id), self._principal
        async with self._database.transaction(principal.tenant_id) as tx:
            await standing.now(tx, principal)
            expires_at = await repository.add_ticket(
                tx, new_id(), principal.user_id, digest_of(ticket), principal.credential_id, seconds=TICKET_SECONDS
            )
        return Ticket(ticket, expires_at)

    async def _key(self, tx: Transaction, key_id: UUID, *, lock: bool = False) -> ApiKey:
        found = await repository.find(tx, key_id, lock=lock)
        if found is None:
            raise NotFound("there is no such key", code="key_not_found")
        self._owner(found.user_id)
        return found

    async def _page(self, owner: UUID | None, limit: int, cursor: str | None) -> Page[ApiKey]:
        before = _CURSORS.read(cursor, owner) if cursor else None
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            found = await repository.page(tx, owner, before=before, limit=limit + 1)
        return _CURSORS.page(found, limit, lambda key: key.id, owner)

    def _owner(self, user_id: UUID | None) -> UUID:
        if user_id is not None and user_id != self._principal.user_id:
            self._principal.require(Right.PEOPLE_ADMIN)
            return user_id
        return self._principal.user_id

    async def _bounded(
        self, tx: Transaction, owner: UUID, scopes: list[Right] | None, expires_at: datetime | None
    ) -> tuple[list[str] | None, datetime | None, UUID | None]:
        """Return scopes and end that lie within what the principal has at this moment, and who that is in person."""
        now = await standing.now(tx, self._principal)
        beyond = sorted(set(scopes or ()) - now.rights)
        if beyond:
            raise PermissionDenied(
                f"a key can have no right that you, or the key that you use, do not have: {', '.join(beyond)}",
                code="scopes_too_wide",
            )
        if scopes is None and (not now.is_whole or owner != self._principal.user_id):
            scopes = list(now.rights)  # what its owner may some day is not its maker's to give
        ends = [time for time in (expires_at, now.ends_at) if time is not None]
        return None if scopes is None else sorted(set(scopes)), min(ends, default=None), now.maker_id
