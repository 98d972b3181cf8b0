"""What a principal may do: roles, rights, and which role has which. Pure; who the principal is, others decide.

Roles form a chain: whatever `readonly` may, `user` may, and whatever `user` may, `admin` may. A role is held in a
tenant, and one of its own in each team. A key's scopes are rights; what it may is never more than what its owner may
at the time of use.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Role in a tenant or in a team, from least to most."""

    READONLY = "readonly"
    USER = "user"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Place in the chain; a higher one has all rights of a lower one."""
        return _CHAIN.index(self)

    def covers(self, other: Role) -> bool:
        """Return whether this role has every right of the other."""
        return self.rank >= other.rank


class Right(StrEnum):
    """What can be allowed, in the words that scopes of keys use."""

    SESSIONS_READ = "sessions:read"
    """Read one's own sessions and those shared with one: history, files, artifacts, the kernel's variables."""
    SESSIONS_WRITE = "sessions:write"
    """Open, change, archive, delete, fork and share sessions; upload and delete files; send messages."""
    KERNEL_EXECUTE = "kernel:execute"
    """Run code, interrupt, restart and reset kernels."""
    AGENTS_READ = "agents:read"
    AGENTS_WRITE = "agents:write"
    """Store, change and share agent configurations."""
    MODELS_READ = "models:read"
    PROFILE_READ = "profile:read"
    """Read one's own profile, preferences, teams and the names of one's keys."""
    PROFILE_WRITE = "profile:write"
    """Change one's own profile and preferences; log out."""
    KEYS_WRITE = "keys:write"
    """Make and revoke one's own API keys, and store keys of model providers for oneself."""
    TEAMS_WRITE = "teams:write"
    """Found teams, and lead those in which one is an administrator."""
    PEOPLE_ADMIN = "people:admin"
    """Invite people, change their roles, disable them; make service accounts and their keys."""
    TENANT_READ = "tenant:read"
    """Read all sessions of the tenant, its usage and its audit log."""
    TENANT_ADMIN = "tenant:admin"
    """Change all sessions of the tenant, its settings, retention and shared keys of model providers."""


_CHAIN: Final = (Role.READONLY, Role.USER, Role.ADMIN)
_READONLY: Final = frozenset(
    {Right.SESSIONS_READ, Right.AGENTS_READ, Right.MODELS_READ, Right.PROFILE_READ, Right.PROFILE_WRITE}
)
_USER: Final = _READONLY | {
    Right.SESSIONS_WRITE,
    Right.KERNEL_EXECUTE,
    Right.AGENTS_WRITE,
    Right.KEYS_WRITE,
    Right.TEAMS_WRITE,
}
ALL_RIGHTS: Final = frozenset(Right)
_RIGHTS: Final = {Role.READONLY: _READONLY, Role.USER: _USER, Role.ADMIN: ALL_RIGHTS}


def rights_of(role: Role) -> frozenset[Right]:
    """Return the rights that a role has."""
    return _RIGHTS[role]
