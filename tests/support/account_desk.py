"""Accounts to test with: the parts over a context, with argon2 that takes no time, and people with accounts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from argon2 import PasswordHasher
from tests.support.mailbox import link_token, mails

from carrel_gateway.accounts.parts import Client, Parts, open_parts
from carrel_gateway.accounts.passwords import Passwords
from carrel_gateway.accounts.service import AccountService, LoginService, Tokens
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.storage.ids import new_id

QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORD = "correct horse battery"
PROGRAM = Client("program", "carrel-sdk/1.0", "127.0.0.1")
BROWSER = Client("browser", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)", "127.0.0.1")


@dataclass
class AccountDesk:
    """One process's accounts."""

    parts: Parts
    accounts: AccountService
    logins: LoginService

    def address(self) -> str:
        """Return an address that nobody has."""
        return f"{new_id().hex}@example.org"

    async def mail(self, to: str, kind: str | None = None):
        """Return the newest mail to an address once all are sent, or what its link carries; none when there is none."""
        await self.parts.works.done()
        await self.parts.mailer.sent()
        found = mails(self.parts.context.settings.data_dir, to)
        if not found:
            return None
        return link_token(found[-1], kind) if kind else found[-1]

    async def set_up(self, email: str, client: Client = PROGRAM, password: str = PASSWORD) -> Tokens:
        """Register, read the mail, and set the account up."""
        await self.accounts.register(email)
        token = await self.mail(email, "setup")
        return await self.accounts.set_up(token, name="Ada", password=password, client=client)


def principal_of(tokens: Tokens) -> Principal:
    """Return whom the authenticator makes of a login's access token."""
    return Principal(tokens.tenant_id, tokens.user_id, credential_id=tokens.login_id)


@asynccontextmanager
async def account_desk(context: ProcessContext) -> AsyncGenerator[AccountDesk]:
    """Open the parts."""
    async with open_parts(context) as opened:
        parts = replace(opened, passwords=Passwords(QUICK))
        yield AccountDesk(parts, AccountService(parts), LoginService(parts))
        await parts.passwords.aclose()
