"""The matrix of access: every route by role, whose object it is and kind of credential, over each database.

Plan: the routes are those of the application's own description, with its sockets; one that has no row in
`tests.support.operations` fails. Whoever lacks a right is told so (403), whoever's session it is; another person's
session of one's own tenant is 403 and another tenant's 404; whoever may is let through. Keys with scopes: all rights
but one that is needed are not enough, exactly those that are needed are. Lists show what may be read and nothing else.
What was refused has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.routing import WebSocketRoute
from tests.support.matrix import World, world
from tests.support.operations import OPERATIONS, Operation

from carrel_gateway.context import Principal
from carrel_gateway.identity.policy import RULES
from carrel_gateway.identity.rights import ALL_RIGHTS, Right, Role, rights_of
from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings

KINDS = ("session", "artifact", "team", "user", "key", "agent", "login", "invitation", "job")
GUARDED = [operation for operation in OPERATIONS if operation.rights is not None]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def everybody(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("matrix") / "data",
        database_url=url,
        spare_kernel_host=False,
        kernel_preload="",
    )
    with world(settings) as made:
        yield made


def described() -> set[tuple[str, str]]:
    app = create_app(Settings(_env_file=None, data_dir=Path("/nonexistent")))
    found = {
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if method in {"get", "put", "post", "delete", "patch", "head", "options"}
    }
    found |= {("WS", route.path) for route in app.routes if isinstance(route, WebSocketRoute)}
    return found


def test_every_route_is_in_the_matrix() -> None:
    known = {(operation.method, operation.template) for operation in OPERATIONS}
    assert known == described()
    assert len(known) == len(OPERATIONS)


def test_the_rules_are_those_of_the_matrix() -> None:
    """The pages and the description have no row there; they ask nobody who they are."""
    named = {(item.method, item.template): item for item in OPERATIONS}
    assert named.keys() <= RULES.keys()
    assert all(RULES[other] is None for other in RULES.keys() - named.keys())
    for key, operation in named.items():
        rule = RULES[key]
        assert (None if rule is None else rule.rights) == operation.rights


def outcome(operation: Operation, caller: Principal, owner: Principal, rights: frozenset[Right]) -> set[int]:
    """Return the statuses that may come back."""
    assert operation.rights is not None
    if not operation.rights <= rights:
        return {403}
    if "login_id" in operation.path and owner.user_id != caller.user_id:
        return {404}
    if operation.names_an_object and owner.tenant_id != caller.tenant_id:
        return {404}
    beyond = operation.right_beyond
    if operation.names_an_object and owner.user_id != caller.user_id and beyond and beyond not in rights:
        return {403}
    return {200} if not operation.changes else {200, 201, 202, 204, 400, 409, 412, 422}


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.name)
def test_route_by_role_by_owner_by_credential(everybody: World, operation: Operation) -> None:
    before = everybody.rows()
    for role, caller in everybody.people.items():
        made = {"key": everybody.key(caller), "token": everybody.token(caller)}
        kinds = ["key", "token", *(["ticket"] if operation.method == "WS" else [])]
        for kind in kinds:
            for owner in (caller, everybody.colleague, everybody.stranger):
                if operation.consumes and role is Role.ADMIN and owner is everybody.colleague:
                    continue  # it would be gone, as it should; `test_an_administrator_may_delete` looks at it
                credential = everybody.ticket(made["key"]) if kind == "ticket" else made[kind]
                status, code = everybody.ask(operation, owner, credential)
                if operation.ends_login and kind == "token":
                    made[kind] = everybody.token(caller)
                wanted = outcome(operation, caller, owner, rights_of(role))
                assert status in wanted, (operation.name, role, kind, owner is caller, status, code)
                if wanted == {404}:
                    assert code in {f"{name}_not_found" for name in KINDS}
                if wanted == {403}:
                    assert code in {"permission_denied", "not_your_session"}
    assert everybody.ask(operation, everybody.colleague, None) == (401, "unauthenticated")
    if operation.consumes:
        return
    after = everybody.rows()
    assert after[1] == before[1]
    if not operation.changes:
        assert after == before


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.name)
def test_scopes_of_keys(everybody: World, operation: Operation) -> None:
    assert operation.rights is not None
    admin = everybody.people[Role.ADMIN]
    for right in operation.rights:
        key = everybody.key(admin, set(ALL_RIGHTS - {right}))
        assert everybody.ask(operation, admin, key) == (403, "permission_denied")
    key = everybody.key(admin, set(operation.rights))
    for owner in (admin, everybody.colleague, everybody.stranger):
        wanted = outcome(operation, admin, owner, operation.rights)
        assert everybody.ask(operation, owner, key)[0] in wanted
    # More than its owner has, a key cannot have.
    readonly = everybody.people[Role.READONLY]
    status, _ = everybody.ask(operation, readonly, everybody.key(readonly, set(ALL_RIGHTS)))
    assert status in outcome(operation, readonly, readonly, rights_of(Role.READONLY))


def test_lists_show_what_may_be_read(everybody: World) -> None:
    for role, caller in everybody.people.items():
        answer = everybody.gateway.request("GET", "/api/sessions?limit=200", credential=everybody.key(caller))
        seen = {item["id"] for item in answer.json()["items"]}
        theirs = {owner: {str(own.session), str(own.archived)} for owner, own in everybody.objects.items()}
        assert theirs[caller.user_id] <= seen
        assert bool(theirs[everybody.colleague.user_id] & seen) == (role is Role.ADMIN)
        assert not theirs[everybody.stranger.user_id] & seen


def test_an_administrator_may_delete(everybody: World) -> None:
    delete = next(operation for operation in OPERATIONS if operation.consumes)
    admin = everybody.people[Role.ADMIN]
    assert everybody.ask(delete, everybody.colleague, everybody.key(admin)) == (200, "")
    assert everybody.ask(delete, everybody.stranger, everybody.key(admin)) == (404, "session_not_found")


def test_over_a_socket_reading_is_not_writing(everybody: World) -> None:
    """Attack 26: a reader must not run code by way of a message."""
    for role, caller in everybody.people.items():
        mine = everybody.objects[caller.user_id].archived
        with everybody.gateway.socket(f"/ws/chat/{mine}", credential=everybody.key(caller)) as socket:
            for frame in ({"type": "message", "message": "hello"}, {"type": "cancel"}):
                socket.send(frame)
                if role is Role.READONLY:
                    assert socket.receive()["code"] == "permission_denied"
                elif frame["type"] == "message":
                    assert socket.receive()["code"] == "archived"
    reading = {Right.SESSIONS_READ, Right.TENANT_READ}
    admin = everybody.people[Role.ADMIN]
    colleagues = everybody.objects[everybody.colleague.user_id].archived
    for scopes, code in (
        (reading, "permission_denied"),
        (reading | {Right.SESSIONS_WRITE}, "permission_denied"),
        (reading | {Right.SESSIONS_WRITE, Right.KERNEL_EXECUTE}, "not_your_session"),
    ):
        key = everybody.key(admin, scopes)
        with everybody.gateway.socket(f"/ws/chat/{colleagues}", credential=key) as socket:
            socket.send({"type": "message", "message": "hello"})
            assert socket.receive()["code"] == code
