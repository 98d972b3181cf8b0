"""Checks of the product, each broken on purpose: what `escalation` must find, so that its silence means something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from carrel_gateway.accounts import invitations, invites
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.identity import authenticator, standing
from carrel_gateway.identity.rights import ALL_RIGHTS, rights_of
from carrel_gateway.people import authority, users
from carrel_gateway.sessions.access import SessionAccess

Break: TypeAlias = Callable[[pytest.MonkeyPatch], None]


def _scopes_count_for_nothing(patch: pytest.MonkeyPatch) -> None:
    real = authenticator.principal_of

    def whole(*arguments: Any) -> Any:
        principal = real(*arguments)
        return replace(principal, rights=rights_of(principal.role))

    patch.setattr(authenticator, "principal_of", whole)


def _keys_have_more_than_their_makers(patch: pytest.MonkeyPatch) -> None:
    async def bounded(_: Any, __: Any, ___: Any, scopes: Any, expires_at: Any) -> Any:
        return scopes, expires_at

    patch.setattr(CredentialService, "_bounded", bounded)


def _keys_outlive_their_makers_rights(patch: pytest.MonkeyPatch) -> None:
    real = authenticator.principal_of

    def without(tenant_id: Any, found: Any) -> Any:
        return real(tenant_id, replace(found, maker=None, kind="person"))

    patch.setattr(authenticator, "principal_of", without)


def _old_keys_have_all_that_their_accounts_have(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(standing, "_is_nobodys", lambda *_: False)


def _roles_are_given_by_whoever_does_not_have_them(patch: pytest.MonkeyPatch) -> None:
    for module in (authority, invitations):
        patch.setattr(module, "require_covering", lambda *_: None)


def _users_are_changed_by_anybody(patch: pytest.MonkeyPatch) -> None:
    async def everything(*_: Any) -> Any:
        return ALL_RIGHTS

    patch.setattr(users.authority, "require_now", everything)
    patch.setattr("carrel_gateway.identity.policy.require", lambda *_: None)


def _invitations_outlive_their_senders(patch: pytest.MonkeyPatch) -> None:
    async def use(tx: Any, invitation_id: Any, _: Any) -> None:
        await invites.mark(tx, invitation_id, used=True)

    patch.setattr(invitations, "_use", use)


def _invitations_work_twice(patch: pytest.MonkeyPatch) -> None:
    real = invites.mark

    async def mark(tx: Any, invitation_id: Any, *, used: bool) -> Any:
        sender = await real(tx, invitation_id, used=used)
        if used:
            await real(tx, invitation_id, used=False)
        return sender

    patch.setattr(invites, "mark", mark)


def _anybody_leads_a_team(patch: pytest.MonkeyPatch) -> None:
    async def lead(*_: Any) -> None:
        return None

    patch.setattr(authority, "require_lead", lead)


def _everybody_may_touch_every_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SessionAccess, "require", _let_in)


async def _let_in(*_: Any, **__: Any) -> None:
    return None


BREAKS: dict[str, Break] = {
    made.__name__.strip("_"): made
    for made in (
        _scopes_count_for_nothing,
        _keys_have_more_than_their_makers,
        _keys_outlive_their_makers_rights,
        _old_keys_have_all_that_their_accounts_have,
        _roles_are_given_by_whoever_does_not_have_them,
        _users_are_changed_by_anybody,
        _invitations_outlive_their_senders,
        _invitations_work_twice,
        _anybody_leads_a_team,
        _everybody_may_touch_every_session,
    )
}
