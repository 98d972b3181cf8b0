"""What each route of the API takes, written down a second time: the matrix of access compares the product with it.

Whoever adds a route adds a row. It says which rights the route takes, and what to send so that whoever may is not
refused, at little cost: a body that is refused as such (422), or an archived session, says as well as a kernel does
that the caller was let through. Objects that a path names are made by `tests.support.matrix`, one of each owner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from carrel_gateway.identity.rights import Right

_SAME = {"{model}": "{name}", "{server}": "{name}", "{mate_id}": "{user_id}"}
"""Places in paths that have another name here than in the application, because something else is put there."""
_PLACES = re.compile("|".join(map(re.escape, _SAME)))


@dataclass(frozen=True, slots=True)
class Operation:
    """One route."""

    method: str
    path: str
    rights: frozenset[Right] | None
    """None of a route that asks nobody who they are."""
    changes: bool = False
    """Whether it changes what its path names."""
    json: Any = None
    """A body that could be taken."""
    cheap: Any = None
    """One that cannot: sent where it would be, were it good."""
    beyond: Right | None = None
    """What it takes to do it with another person's object, where that is not what holds for sessions."""
    consumes: bool = False
    """Whether what its path names is gone afterwards."""
    ends_login: bool = False
    """Whether the credential is good for nothing afterwards, where it is of a login."""

    @property
    def template(self) -> str:
        """The path as the application has it."""
        return _PLACES.sub(lambda found: _SAME[found[0]], self.path.partition("?")[0])

    @property
    def names_an_object(self) -> bool:
        return any(
            f"{{{kind}_id}}" in self.path
            for kind in ("session", "artifact", "team", "user", "key", "agent", "invitation", "job")
        )

    @property
    def right_beyond(self) -> Right | None:
        """What it takes to do it with another person's object."""
        if "session_id" in self.path or "artifact_id" in self.path:
            return Right.TENANT_ADMIN if self.changes else Right.TENANT_READ
        return self.beyond

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def _public(method: str, path: str) -> Operation:
    return Operation(method, path, None)


def _op(method: str, path: str, *rights: Right, **options: Any) -> Operation:
    changes = options.pop("changes", method != "GET")
    return Operation(method, path, frozenset(rights), changes, **options)


READ, WRITE, EXECUTE = Right.SESSIONS_READ, Right.SESSIONS_WRITE, Right.KERNEL_EXECUTE
ME = Right.PROFILE_WRITE
NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
S = "/api/sessions/{session_id}"

OPERATIONS: list[Operation] = [
    _public("GET", "/health"),
    _public("GET", "/health/ready"),
    _public("GET", "/info"),
    _public("GET", "/api/objects/{token}"),
    _public("POST", "/api/auth/register"),
    _public("POST", "/api/auth/verify"),
    _public("POST", "/api/auth/login"),
    _public("POST", "/api/auth/refresh"),
    _public("POST", "/api/auth/forgot"),
    _public("POST", "/api/auth/reset"),
    _public("POST", "/api/auth/accept"),
    _op("GET", "/api/invitations", Right.PEOPLE_ADMIN),
    _op("POST", "/api/invitations", Right.PEOPLE_ADMIN, json={"email": "x"}),
    _op("DELETE", "/api/invitations/{invitation_id}", Right.PEOPLE_ADMIN),
    _public("GET", "/api/auth/oidc/login"),
    _public("GET", "/api/auth/oidc/callback"),
    _op("POST", "/api/auth/logout", ME, ends_login=True),
    _op("POST", "/api/auth/logout-everywhere", ME, ends_login=True),
    _op("GET", "/api/auth/logins", Right.PROFILE_READ),
    _op("DELETE", "/api/auth/logins/{login_id}", ME),
    _op("PUT", "/api/auth/password", ME, json={"current": "x", "new": "x" * 10}, cheap={}),
    _op("POST", "/api/auth/switch", ME, json={"tenant_id": "x"}),
    _op("GET", "/api/me", Right.PROFILE_READ),
    _op("PUT", "/api/me", ME, json={"name": "x"}),
    _op("GET", "/api/me/preferences", Right.PROFILE_READ),
    _op("PUT", "/api/me/preferences", ME, json={"preferences": {}}),
    _op("POST", "/api/sessions", WRITE, json={"title": "x"}, cheap={"title": ""}),
    _op("GET", "/api/sessions", READ),
    _op("GET", S, READ),
    _op("PUT", S, WRITE, json={"title": "x"}, cheap={"title": ""}),
    _op("DELETE", S, WRITE, consumes=True),
    _op("POST", f"{S}/archive", WRITE),
    _op("POST", f"{S}/suspend", WRITE),
    _op("POST", f"{S}/resume", EXECUTE),
    _op("POST", f"{S}/fork", WRITE, json={"title": "x"}, cheap={"title": ""}),
    _op("GET", f"{S}/config", READ),
    _op("PUT", f"{S}/config", WRITE, json={"model": None}, cheap={"model": ""}),
    _op("POST", f"{S}/reload", WRITE),
    _op("GET", "/api/mcp/templates", READ),
    _op("GET", f"{S}/mcp", READ),
    _op("POST", f"{S}/mcp", WRITE, json={"template": "time"}, cheap={}),
    _op("GET", f"{S}/mcp/{{server}}", READ),
    _op("PUT", f"{S}/mcp/{{server}}", WRITE, json={"enabled": False}),
    _op("DELETE", f"{S}/mcp/{{server}}", WRITE),
    _op("POST", f"{S}/chat", WRITE, EXECUTE, json={"message": "x"}, cheap={}),
    _op("POST", f"{S}/chat/stream", WRITE, EXECUTE, json={"message": "x"}, cheap={}),
    _op("POST", f"{S}/cancel", WRITE),
    _op("GET", f"{S}/messages", READ),
    _op("PUT", f"{S}/messages/{{message_id}}", WRITE, EXECUTE, json={"content": "x"}, cheap={"content": 7}),
    _op("DELETE", f"{S}/messages/{{message_id}}", WRITE),
    _op("GET", f"{S}/events", READ),
    _op("GET", f"{S}/export", READ),
    _op("GET", f"{S}/kernel", READ),
    _op("GET", f"{S}/kernel/variables", READ),
    _op("POST", f"{S}/kernel/execute", EXECUTE, json={"code": "1"}, cheap={}),
    _op("POST", f"{S}/kernel/interrupt", EXECUTE),
    _op("POST", f"{S}/kernel/restart", EXECUTE),
    _op("POST", f"{S}/kernel/reset", EXECUTE),
    _op("POST", f"{S}/kernel/complete", EXECUTE, json={"code": "a", "cursor_pos": 1}, cheap={}),
    _op("POST", f"{S}/files", WRITE),
    _op("GET", f"{S}/files", READ),
    _op("GET", f"{S}/files/{{name}}", READ),
    _op("DELETE", f"{S}/files/{{name}}", WRITE),
    _op("POST", f"{S}/uploads", WRITE),
    _op("GET", f"{S}/uploads/{{upload_id}}", READ),
    _op("PATCH", f"{S}/uploads/{{upload_id}}", WRITE),
    _op("DELETE", f"{S}/uploads/{{upload_id}}", WRITE),
    _op("GET", f"{S}/artifacts", READ),
    _op("GET", f"{S}/artifacts/{{name}}", READ),
    _op("GET", "/api/artifacts/{artifact_id}", READ),
    _op("GET", "/api/artifacts/{artifact_id}/versions", READ),
    _op("GET", f"{S}/notebook", READ),
    _op("POST", f"{S}/notebook/sync", WRITE, json={"notebook": NOTEBOOK}, cheap={}),
    _op("GET", "/api/search?q=word", READ),
    _op("GET", "/api/keys", Right.PROFILE_READ),
    _op("POST", "/api/keys", Right.KEYS_WRITE, json={"name": ""}),
    _op("DELETE", "/api/keys", Right.KEYS_WRITE),
    _op("GET", "/api/keys/{key_id}", Right.PROFILE_READ, beyond=Right.PEOPLE_ADMIN),
    _op("DELETE", "/api/keys/{key_id}", Right.KEYS_WRITE, beyond=Right.PEOPLE_ADMIN),
    _op("POST", "/api/tickets", READ),
    _op("GET", "/api/users", Right.TEAMS_WRITE),
    _op("POST", "/api/users", Right.PEOPLE_ADMIN, json={"name": "x", "role": "readonly"}, cheap={"name": ""}),
    _op("GET", "/api/users/{user_id}", Right.TEAMS_WRITE),
    _op("PUT", "/api/users/{user_id}", Right.PEOPLE_ADMIN, json={"name": "x"}),
    _op("GET", "/api/teams", Right.PROFILE_READ),
    _op("POST", "/api/teams", Right.TEAMS_WRITE, json={"name": "x"}, cheap={"name": ""}),
    _op("GET", "/api/teams/{team_id}", Right.PROFILE_READ, beyond=Right.PEOPLE_ADMIN),
    _op("PUT", "/api/teams/{team_id}", Right.TEAMS_WRITE, beyond=Right.PEOPLE_ADMIN, json={"name": "x"}),
    _op("DELETE", "/api/teams/{team_id}", Right.TEAMS_WRITE, beyond=Right.PEOPLE_ADMIN),
    _op("GET", "/api/teams/{team_id}/members/{mate_id}", Right.PROFILE_READ, beyond=Right.PEOPLE_ADMIN),
    _op(
        "PUT",
        "/api/teams/{team_id}/members/{mate_id}",
        Right.TEAMS_WRITE,
        beyond=Right.PEOPLE_ADMIN,
        json={"role": "readonly"},
    ),
    # Everybody may leave; to take somebody else out is to lead.
    _op("DELETE", "/api/teams/{team_id}/members/{user_id}", Right.PROFILE_WRITE, beyond=Right.PEOPLE_ADMIN),
    _op("GET", f"{S}/teams", READ),
    _op("GET", f"{S}/teams/{{team_id}}", READ),
    _op("PUT", f"{S}/teams/{{team_id}}", WRITE, json={}),
    _op("DELETE", f"{S}/teams/{{team_id}}", WRITE),
    _op("POST", f"{S}/share", WRITE, cheap={"expires_in_seconds": 1}, json={}),
    _op("GET", f"{S}/share", WRITE, changes=True),
    _op("GET", f"{S}/share/{{link_id}}", WRITE, changes=True),
    _op("DELETE", f"{S}/share/{{link_id}}", WRITE),
    _public("GET", "/api/shared/{token}"),
    _public("GET", "/api/shared/{token}/messages"),
    _public("GET", "/api/shared/{token}/notebook"),
    _public("GET", "/api/shared/{token}/artifacts"),
    _public("GET", "/api/shared/{token}/artifacts/{artifact_id}"),
    _op("GET", "/api/agents", Right.AGENTS_READ),
    _op("POST", "/api/agents", Right.AGENTS_WRITE, json={"name": "x"}, cheap={"name": ""}),
    _op("GET", "/api/agents/{agent_id}", Right.AGENTS_READ, beyond=Right.TENANT_READ),
    _op("PUT", "/api/agents/{agent_id}", Right.AGENTS_WRITE, beyond=Right.TENANT_ADMIN, json={"name": "x"}),
    _op("DELETE", "/api/agents/{agent_id}", Right.AGENTS_WRITE, beyond=Right.TENANT_ADMIN),
    _op("GET", "/api/agents/{agent_id}/teams/{team_id}", Right.AGENTS_READ, beyond=Right.TENANT_READ),
    _op("PUT", "/api/agents/{agent_id}/teams/{team_id}", Right.AGENTS_WRITE, beyond=Right.TENANT_ADMIN, json={}),
    _op("DELETE", "/api/agents/{agent_id}/teams/{team_id}", Right.AGENTS_WRITE, beyond=Right.TENANT_ADMIN),
    _op("GET", "/api/provider-keys", Right.PROFILE_READ),
    _op("GET", "/api/provider-keys/{provider}", Right.PROFILE_READ),
    _op("PUT", "/api/provider-keys/{provider}", Right.KEYS_WRITE, json={"key": "x" * 20}, cheap={"key": ""}),
    _op("DELETE", "/api/provider-keys/{provider}", Right.KEYS_WRITE),
    _op("GET", "/api/audit", Right.TENANT_READ),
    _op("GET", "/api/audit/export", Right.TENANT_READ),
    _op("GET", "/api/audit/verify", Right.TENANT_READ),
    _op("GET", "/api/jobs", Right.TENANT_ADMIN),
    _op("GET", "/api/jobs/{job_id}", Right.TENANT_ADMIN),
    _op("POST", "/api/jobs/{job_id}/retry", Right.TENANT_ADMIN),
    _op("POST", "/api/jobs/{job_id}/cancel", Right.TENANT_ADMIN),
    _op("GET", "/api/usage", Right.TENANT_READ),
    _op("GET", "/api/me/usage", Right.PROFILE_READ),
    _op("GET", "/api/quotas", Right.TENANT_READ),
    _op("PUT", "/api/quotas", Right.TENANT_ADMIN, cheap={"scope": "x"}),
    _op("GET", "/api/me/quotas", Right.PROFILE_READ),
    _op("GET", "/api/models", Right.MODELS_READ),
    _op("GET", "/api/models/{model}/validate", Right.MODELS_READ),
    _op("WS", "/ws/chat/{session_id}", READ, changes=False),
]
