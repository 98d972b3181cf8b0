"""Who may have which rights, as administrators have given them: what `escalation` compares the product with.

Written down a second time, from the documentation alone: it imports nothing of the product, so that a mistake there
is none here. It knows upper bounds: what somebody may have at most. Every change of it says whether whoever asks may
make it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Rights: TypeAlias = frozenset[str]
Level: TypeAlias = Literal[0, 1, 2]

NONE: Rights = frozenset()
READONLY = frozenset({"sessions:read", "agents:read", "models:read", "profile:read", "profile:write"})
USER = READONLY | {"sessions:write", "kernel:execute", "agents:write", "keys:write", "teams:write"}
ADMIN = USER | {"people:admin", "tenant:read", "tenant:admin"}
OF_ROLE = {"readonly": READONLY, "user": USER, "admin": ADMIN}
ROLES = tuple(OF_ROLE)


@dataclass
class User:
    """Somebody in one tenant, or a service account of it."""

    tenant: str
    id: str
    role: str
    kind: str = "person"
    disabled: bool = False

    @property
    def rights(self) -> Rights:
        return NONE if self.disabled else OF_ROLE[self.role]


@dataclass
class Person:
    """Somebody with an account, above tenants."""

    id: str
    email: str


@dataclass(eq=False)
class Held:
    """A key or an access token that was handed out, whether or not it is good for anything by now."""

    kind: str
    secret: str
    id: str
    """Of the key or the login."""
    owner: User
    ceiling: Rights | None = None
    """What it was given at most; none grows with its owner's role."""
    maker: User | None = None
    """Of a service account's key: the person who made it, by whichever keys; of an old one nobody knows."""
    refresh: str | None = None
    ended: bool = False

    @property
    def rights(self) -> Rights:
        """What it may at most, now."""
        if self.ended:
            return NONE
        has = self.owner.rights
        if self.maker is not None:
            has &= self.maker.rights
        elif self.owner.kind == "service":
            has &= USER
        return has if self.ceiling is None else has & self.ceiling

    def covers(self, role: str) -> bool:
        return OF_ROLE[role] <= self.rights


@dataclass(eq=False)
class Team:
    """A team, with the roles of its members by their ids."""

    tenant: str
    id: str
    members: dict[str, str] = field(default_factory=dict)

    def is_led_by(self, held: Held) -> bool:
        may = held.owner.tenant == self.tenant and "teams:write" in held.rights
        return may and (self.members.get(held.owner.id) == "admin" or "people:admin" in held.rights)


@dataclass(eq=False)
class Session:
    """A session, with the teams that it is shared with."""

    tenant: str
    id: str
    owner: str
    archived: bool = False
    shares: dict[Team, str] = field(default_factory=dict)

    def is_read_by(self, held: Held) -> bool:
        return "sessions:read" in held.rights and (self._level(held) >= 1 or self._all(held, "tenant:read"))

    def is_changed_by(self, held: Held) -> bool:
        return "sessions:write" in held.rights and (self._level(held) == 2 or self._all(held, "tenant:admin"))

    def _all(self, held: Held, right: str) -> bool:
        return held.owner.tenant == self.tenant and right in held.rights

    def _level(self, held: Held) -> Level:
        """Return what its owner may do with it: nothing, read, write."""
        if held.owner.tenant != self.tenant:
            return 0
        by_teams = [
            2 if access == "write" and team.members[held.owner.id] != "readonly" else 1
            for team, access in self.shares.items()
            if held.owner.id in team.members
        ]
        return 2 if self.owner == held.owner.id else max(by_teams, default=0)

    def is_shared_by(self, held: Held, team: Team) -> bool:
        """Return whether a credential may share it with a team."""
        if not held.owner.tenant == self.tenant == team.tenant or "sessions:write" not in held.rights:
            return False
        is_own = self.owner == held.owner.id and held.owner.id in team.members
        return is_own or "tenant:admin" in held.rights


@dataclass(eq=False)
class Invitation:
    """An invitation, good while whoever sent it could send it again."""

    tenant: str
    id: str
    token: str
    email: str
    role: str
    sender: User
    maker: User | None = None
    """As of the key that it was sent by."""
    gone: bool = False

    @property
    def is_good(self) -> bool:
        behind = [self.sender] if self.maker is None else [self.sender, self.maker]
        needed = OF_ROLE[self.role] | {"people:admin"}
        return not self.gone and all(needed <= user.rights for user in behind)


@dataclass
class Model:
    """Everybody, and what was handed out."""

    users: dict[tuple[str, str], User] = field(default_factory=dict)
    people: list[Person] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    tickets: list[tuple[str, Held]] = field(default_factory=list)
    teams: list[Team] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    invitations: list[Invitation] = field(default_factory=list)

    def add_user(self, tenant: str, user_id: str, role: str, kind: str = "person") -> User:
        """Add a user, unless it is one already: then it keeps its role."""
        return self.users.setdefault((tenant, user_id), User(tenant, user_id, role, kind))

    def may_make_key(self, maker: Held, owner: User, scopes: list[str] | None) -> bool:
        is_own = owner is maker.owner
        for_service = "people:admin" in maker.rights and owner.kind == "service" and owner.tenant == maker.owner.tenant
        return "keys:write" in maker.rights and (is_own or for_service) and set(scopes or ()) <= maker.rights

    def may_change(self, by: Held, user: User | None, role: str | None, disabled: bool | None) -> bool:
        if user is None or user.tenant != by.owner.tenant or "people:admin" not in by.rights:
            return False
        gives_role = role is not None and role != user.role
        enables = disabled is False and user.disabled
        return (not gives_role or by.covers(role or user.role)) and (not enables or by.covers(role or user.role))

    def end_login(self, login_id: str) -> None:
        for held in self.held:
            if held.kind == "token" and held.id == login_id:
                held.ended = True
