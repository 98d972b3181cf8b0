"""What other features and the routes use of people."""

from __future__ import annotations

from carrel_gateway.people.authority import LastAdministrator
from carrel_gateway.people.repository import Member, Team, User
from carrel_gateway.people.teams import TeamService
from carrel_gateway.people.users import UserService

__all__ = ["LastAdministrator", "Member", "Team", "TeamService", "User", "UserService"]
