"""What other features and the routes use of people."""

from __future__ import annotations

from carrel_gateway.people.authority import LastAdministrator, require_covering, require_now
from carrel_gateway.people.repository import Member, Team, User
from carrel_gateway.people.teams import TeamService
from carrel_gateway.people.users import UserService

__all__ = [
    "LastAdministrator",
    "Member",
    "Team",
    "TeamService",
    "User",
    "UserService",
    "require_covering",
    "require_now",
]
