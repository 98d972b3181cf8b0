"""The first administrator of an installation: made at the start of a gateway when the settings name an address.

No password is in the settings: whoever reads the mail chooses it. The embedded default names nobody, and has none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import IntegrityError

from carrel_gateway.accounts import repository, texts, trail
from carrel_gateway.accounts.addresses import canonical
from carrel_gateway.accounts.links import RESET_MINUTES, Links
from carrel_gateway.accounts.parts import Parts
from carrel_gateway.accounts.repository import Account
from carrel_gateway.errors import CarrelError
from carrel_gateway.identity.rights import Role
from carrel_gateway.identity.service import DEFAULT_TENANT_ID
from carrel_gateway.storage.ids import new_id

NAME: Final = "Administrator"

_log = structlog.get_logger(__name__)


class AdminAddressUnusable(CarrelError):
    """`CARREL_ADMIN_EMAIL` is no address of mail."""

    code = "admin_address_unusable"


async def make_first_administrator(parts: Parts) -> None:
    """Make the account of the settings' address and mail it a link, unless the address has an account.

    Of several gateways that start at once one does it.

    Raises
    ------
    AdminAddressUnusable
        It is no address of mail.
    """
    settings, database = parts.context.settings, parts.context.database
    if not settings.admin_email:
        return
    try:
        email = canonical(settings.admin_email)
    except ValueError as error:
        raise AdminAddressUnusable(f"CARREL_ADMIN_EMAIL cannot be used: {error}") from error
    async with database.login_transaction() as connection:
        if await repository.by_email(connection, email):
            return
    now = datetime.now(UTC)
    account = Account(new_id(), email, None, None, None, (DEFAULT_TENANT_ID,), None, None, now)
    async with database.transaction(DEFAULT_TENANT_ID) as tx:
        await trail.join(parts.context, tx, account, name=NAME, role=Role.ADMIN, by="settings")
    try:
        async with database.login_transaction() as connection:
            await repository.add(connection, account)
    except IntegrityError:
        async with database.transaction(DEFAULT_TENANT_ID) as tx:
            await trail.undo_join(parts.context, tx, account.id)
        return
    link = Links(parts.context.secrets, settings).reset(account)
    parts.mailer.post(texts.reset(email, link, RESET_MINUTES))
    _log.info("first administrator made", user=str(account.id))
