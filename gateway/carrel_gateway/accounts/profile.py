"""Profiles: what a person is called, and what programs in front of Carrel keep for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from carrel_gateway.accounts import repository
from carrel_gateway.accounts.repository import Member
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import InvalidInput, NotFound, TooLarge
from carrel_gateway.identity.rights import Right

MAX_PREFERENCES_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True)
class Profile:
    """Who calls, as they see themselves."""

    member: Member
    principal: Principal
    tenants: list[Member]
    """What each tenant that lets them in knows of them; of whoever has no account, only this one."""


class ProfileService:
    """The profile of one principal."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._principal = principal

    async def get(self) -> Profile:
        """Return the profile.

        Raises
        ------
        PermissionDenied
            Without the right to read it.
        """
        self._principal.require(Right.PROFILE_READ)
        return await self._profile()

    async def rename(self, name: str, expected: Callable[[Profile], None] | None = None) -> Profile:
        """Change the name.

        Parameters
        ----------
        expected
            Raises when the profile is not as the caller has seen it.

        Raises
        ------
        PermissionDenied
            Without the right to change it.
        """
        self._principal.require(Right.PROFILE_WRITE)
        before = await self._profile() if expected else None  # with what other tenants know of them

        def compare(now: Member) -> None:
            if before and expected:
                tenants = [now if one.tenant_id == now.tenant_id else one for one in before.tenants]
                expected(replace(before, member=now, tenants=tenants))

        await self._change({"name": name}, compare)
        return await self._profile()

    async def preferences(self) -> dict[str, Any]:
        """Return the preferences.

        Raises
        ------
        PermissionDenied
            Without the right to read them.
        """
        self._principal.require(Right.PROFILE_READ)
        return (await self._member()).preferences

    async def set_preferences(
        self, preferences: dict[str, Any], expected: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Replace the preferences.

        Parameters
        ----------
        expected
            Raises when they are not as the caller has seen them.

        Raises
        ------
        PermissionDenied
            Without the right to change them.
        InvalidInput
            They hold what cannot be kept as JSON.
        TooLarge
            They are larger than `MAX_PREFERENCES_BYTES` as JSON.
        """
        self._principal.require(Right.PROFILE_WRITE)
        try:
            size = len(msgspec.json.encode(preferences))
        except (UnicodeError, RecursionError, msgspec.MsgspecError) as error:
            # Half a character, or a depth that no program has.
            raise InvalidInput("preferences hold something that cannot be kept as JSON") from error
        if size > MAX_PREFERENCES_BYTES:
            raise TooLarge(f"preferences have at most {MAX_PREFERENCES_BYTES} bytes as JSON")

        def compare(now: Member) -> None:
            if expected:
                expected(now.preferences)

        await self._change({"preferences": preferences}, compare)
        return preferences

    async def _profile(self) -> Profile:
        async with self._database.login_transaction() as connection:
            account = await repository.by_id(connection, self._principal.user_id)
        own = await self._member()
        found: list[Member] = []
        for tenant_id in account.tenants if account else (own.tenant_id,):
            async with self._database.transaction(tenant_id, write=False) as tx:
                member = await repository.member(tx, self._principal.user_id)
            if member and member.disabled_at is None:
                found.append(member)
        return Profile(own, self._principal, found)

    async def _member(self) -> Member:
        async with self._database.transaction(self._principal.tenant_id, write=False) as tx:
            member = await repository.member(tx, self._principal.user_id)
        if member is None:
            raise _gone()
        return member

    async def _change(self, changes: dict[str, Any], compare: Callable[[Member], None]) -> None:
        async with self._database.transaction(self._principal.tenant_id) as tx:
            await repository.lock_member(tx, self._principal.user_id)
            member = await repository.member(tx, self._principal.user_id)
            if member is None:
                raise _gone()
            compare(member)
            if not await repository.change_member(tx, self._principal.user_id, changes):
                raise _gone()


def _gone() -> NotFound:
    return NotFound("that user is not there any more")
