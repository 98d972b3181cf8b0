"""The gateway on which `escalation` is played: two tenants with people for each example, and what they may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.support.account_desk import PASSWORD, QUICK
from tests.support.inside import Inside, inside
from tests.support.mailbox import link_token, mails
from tests.support.people import add_service, new_key, new_team
from tests.support.rights_model import NONE, Held, Model, Person, Rights, Session, Team

from carrel_gateway.accounts import repository
from carrel_gateway.accounts.passwords import Passwords
from carrel_gateway.accounts.repository import Account
from carrel_gateway.accounts.service import AccountService
from carrel_gateway.context import Principal
from carrel_gateway.errors import Unauthenticated
from carrel_gateway.identity.rights import Role
from carrel_gateway.people.service import TeamService
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.sharing.sessions import SessionSharing
from carrel_gateway.storage.ids import new_id


class Stage:
    """A gateway in this process, on which many examples are played, each with tenants of its own."""

    def __init__(self, gateway: Inside) -> None:
        self.gateway = gateway
        self.accepted: Counter[str] = Counter()
        """How often each kind of call was let through: a machine that is always refused shows nothing."""
        self.steps = 0
        app = gateway.app.state
        app.gateway = replace(app.gateway, accounts=replace(app.gateway.accounts, passwords=Passwords(QUICK)))
        self.hashed: str = gateway.call(app.gateway.accounts.passwords.hash, PASSWORD)

    @property
    def accounts(self) -> Any:
        return self.gateway.app.state.gateway.accounts

    async def people(self) -> Model:
        """Make two tenants with people of all roles, each with a key and a session that is put away, and teams."""
        model = Model()
        for others in (("user", "user", "readonly", "admin"), ("user",)):
            email = f"{new_id().hex}@example.org"
            admin = await AccountService(self.accounts).found_tenant(email, name="x", password_hash=self.hashed)
            await self._person(model, Principal(admin.tenant_id, admin.user_id), "admin", email)
            for role in others:
                email = f"{new_id().hex}@example.org"
                who = await self._account(admin.tenant_id, email, role)
                await self._person(model, who, role, email)
                if role == "user":
                    team = await new_team(self.gateway.context.database, who, role=Role.ADMIN)
                    model.teams.append(Team(str(who.tenant_id), str(team), {str(who.user_id): "admin"}))
        await self._share(model)
        await self._service(model)
        return model

    async def _service(self, model: Model) -> None:
        """Make a service account that administers, with a key that one of two administrators made, and an old one."""
        maker = [user for user in model.users.values() if user.role == "admin"][1]
        account = model.add_user(maker.tenant, str(new_id()), "admin", "service")
        who, database = Principal(UUID(account.tenant), UUID(account.id)), self.gateway.context.database
        await add_service(database, who)
        secret, key_id = await new_key(database, who, maker_id=UUID(maker.id))
        model.held.append(Held("key", secret, str(key_id), account, maker=maker))
        secret, key_id = await new_key(database, who)
        model.held.append(Held("key", secret, str(key_id), account))

    async def _share(self, model: Model) -> None:
        """Share a session of the first leader with a team of theirs, in which a colleague only reads."""
        team = model.teams[0]
        leader, colleague = (
            user.id for user in model.users.values() if user.tenant == team.tenant and user.role == "user"
        )
        by = Principal(UUID(team.tenant), UUID(leader))
        await TeamService(self.gateway.context, by).put_member(UUID(team.id), UUID(colleague), Role.READONLY)
        team.members[colleague] = "readonly"
        session = next(session for session in model.sessions if session.owner == leader)
        await SessionSharing(self.gateway.context, by).share(UUID(session.id), UUID(team.id), "write")
        session.shares[team] = "write"

    async def _account(self, tenant_id: Any, email: str, role: str) -> Principal:
        now, database = datetime.now(UTC), self.gateway.context.database
        account = Account(new_id(), email, self.hashed, None, None, (tenant_id,), now, None, now)
        async with database.login_transaction() as connection:
            await repository.add(connection, account)
        async with database.transaction(tenant_id) as tx:
            await repository.add_member(tx, account.id, name="x", email=email, role=Role(role))
        return Principal(tenant_id, account.id)

    async def _person(self, model: Model, who: Principal, role: str, email: str) -> None:
        user = model.add_user(str(who.tenant_id), str(who.user_id), role)
        model.people.append(Person(user.id, email))
        secret, key_id = await new_key(self.gateway.context.database, who, expires_at=None)
        model.held.append(Held("key", secret, str(key_id), user))
        sessions = SessionService(self.gateway.context, who)
        session = (await sessions.create()).id
        await sessions.archive(session)  # so that a message to it starts nothing
        model.sessions.append(Session(user.tenant, str(session), user.id, archived=True))

    async def rights(self, held: Sequence[Held]) -> list[Rights]:
        """Return what the gateway lets each credential do now."""
        found: list[Rights] = []
        for one in held:
            try:
                principal = await self.gateway.authenticator.authenticate(one.secret)
            except Unauthenticated:
                found.append(NONE)
            else:
                found.append(frozenset(right.value for right in principal.rights))
        return found

    def mailed(self, email: str) -> str:
        """Return the token of the newest invitation to an address; the outbox is empty afterwards."""
        self.gateway.call(self.accounts.mailer.sent)
        folder = self.gateway.context.settings.data_dir
        token = link_token(mails(folder, email)[-1], "invite")
        for path in (folder / "outbox").glob("*.eml"):
            path.unlink()
        return token


@contextmanager
def stage(data_dir: Path) -> Iterator[Stage]:
    """Start the gateway."""
    settings = Settings(_env_file=None, data_dir=data_dir, spare_kernel_host=False, kernel_preload="")
    with inside(settings) as gateway:
        made = Stage(gateway)
        yield made
        gateway.call(made.accounts.passwords.aclose)
