"""`/api/users` and `/api/teams`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from carrel_gateway.dependencies import Cursor, Seen, Teams, Users
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.people.schemas import (
    MemberIn,
    MemberOut,
    ServiceCreate,
    TeamDetail,
    TeamIn,
    TeamList,
    TeamOut,
    UserList,
    UserOut,
    UserUpdate,
)
from carrel_gateway.people.service import Member, Team
from carrel_gateway.web.conditional import if_any, tagged

router = APIRouter(route_class=IdempotentRoute, tags=["people"])
Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("/api/users")
async def list_users(users: Users, limit: Limit = 50, cursor: Cursor = None) -> UserList:
    """List the people and service accounts of the tenant."""
    return UserList.model_validate(await users.list(limit=limit, cursor=cursor))


@router.post("/api/users", status_code=status.HTTP_201_CREATED)
async def add_service_account(body: ServiceCreate, users: Users) -> UserOut:
    """Make a service account: a user that nobody logs in as, and that works by keys."""
    return UserOut.model_validate(await users.add_service(body.name, body.role))


@router.get("/api/users/{user_id}")
async def get_user(user_id: UUID, users: Users, response: Response) -> UserOut:
    """Return one of the people and service accounts of the tenant."""
    return tagged(response, UserOut.model_validate(await users.get(user_id)))


@router.put("/api/users/{user_id}")
async def update_user(user_id: UUID, body: UserUpdate, users: Users, seen: Seen, response: Response) -> UserOut:
    """Change somebody's name or role, or disable or enable the account."""
    expected = seen.on(UserOut.model_validate)
    changed = await users.change(user_id, name=body.name, role=body.role, disabled=body.disabled, expected=expected)
    return tagged(response, UserOut.model_validate(changed))


@router.get("/api/teams")
async def list_teams(teams: Teams, limit: Limit = 50, cursor: Cursor = None) -> TeamList:
    """List one's teams; an administrator of the tenant sees all."""
    return TeamList.model_validate(await teams.list(limit=limit, cursor=cursor))


@router.post("/api/teams", status_code=status.HTTP_201_CREATED)
async def found_team(body: TeamIn, teams: Teams) -> TeamOut:
    """Found a team, as its administrator."""
    return TeamOut.model_validate(await teams.found(body.name))


@router.get("/api/teams/{team_id}")
async def get_team(team_id: UUID, teams: Teams, response: Response) -> TeamDetail:
    """Return a team with its members."""
    return tagged(response, _detail(await teams.get(team_id)))


@router.put("/api/teams/{team_id}")
async def rename_team(team_id: UUID, body: TeamIn, teams: Teams, seen: Seen) -> TeamOut:
    """Give a team another name."""
    return TeamOut.model_validate(await teams.rename(team_id, body.name, seen.on(_detail)))


@router.delete("/api/teams/{team_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_team(team_id: UUID, teams: Teams, seen: Seen) -> Response:
    """Delete a team; what was shared with it stays its owners'."""
    await teams.delete(team_id, seen.on(_detail))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/api/teams/{team_id}/members/{user_id}")
async def get_member(team_id: UUID, user_id: UUID, teams: Teams, response: Response) -> MemberOut:
    """Return a member of a team."""
    return tagged(response, MemberOut.model_validate(await teams.member(team_id, user_id)))


@router.put("/api/teams/{team_id}/members/{user_id}")
async def put_member(
    team_id: UUID, user_id: UUID, body: MemberIn, teams: Teams, seen: Seen, response: Response
) -> MemberOut:
    """Take somebody into a team, or give a member another role."""
    put = await teams.put_member(team_id, user_id, body.role, seen.on(if_any(MemberOut.model_validate)))
    return tagged(response, MemberOut.model_validate(put))


@router.delete("/api/teams/{team_id}/members/{user_id}", status_code=status.HTTP_204_NO_CONTENT)
async def remove_member(team_id: UUID, user_id: UUID, teams: Teams, seen: Seen) -> Response:
    """Take somebody out of a team, or leave it."""
    await teams.remove_member(team_id, user_id, seen.on(if_any(MemberOut.model_validate)))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def _detail(found: tuple[Team, list[Member]]) -> TeamDetail:
    team, members = found
    return TeamDetail(
        id=team.id,
        name=team.name,
        role=team.role,
        created_at=team.created_at,
        members=[MemberOut.model_validate(member) for member in members],
    )
