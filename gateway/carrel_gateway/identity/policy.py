"""Which rights each route needs: one table for all of them. What is not in it is refused.

A row is a method (`WS` for a WebSocket) and a path as the page of the API writes it. `changes` says whether the session
that the path names is changed, which takes more than to read it; whose sessions somebody may touch is
`sessions.access`'s. A rule names all rights that it takes, because a key may have any of them alone: whoever sends a
message has an agent run code, and so needs both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from carrel_gateway.context import Principal
from carrel_gateway.errors import PermissionDenied
from carrel_gateway.identity.rights import Right

PUBLIC: Final = None
"""Nobody is asked who they are; the route answers everybody, or looks at what is presented itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route takes."""

    rights: frozenset[Right]
    changes: bool = False


def _rule(*rights: Right, changes: bool = False) -> Rule:
    return Rule(frozenset(rights), changes)


_READ: Final = _rule(Right.SESSIONS_READ)
_WRITE: Final = _rule(Right.SESSIONS_WRITE, changes=True)
_EXECUTE: Final = _rule(Right.KERNEL_EXECUTE, changes=True)
SEND: Final = _rule(Right.SESSIONS_WRITE, Right.KERNEL_EXECUTE, changes=True)
"""A message, over HTTP or over a WebSocket."""
CANCEL: Final = _WRITE
_SESSION: Final = "/api/sessions/{session_id}"

RULES: Final[Mapping[tuple[str, str], Rule | None]] = MappingProxyType(
    {
        # pages, health
        ("GET", "/"): PUBLIC,
        ("GET", "/account"): PUBLIC,
        ("GET", "/docs"): PUBLIC,
        ("GET", "/openapi.json"): PUBLIC,
        ("GET", "/page/{name}"): PUBLIC,
        ("GET", "/health"): PUBLIC,
        ("GET", "/health/ready"): PUBLIC,
        ("GET", "/info"): PUBLIC,
        ("GET", "/api/objects/{token}"): PUBLIC,  # the address is the key
        # people: the first ones show by themselves who calls
        ("POST", "/api/auth/register"): PUBLIC,
        ("POST", "/api/auth/verify"): PUBLIC,
        ("POST", "/api/auth/login"): PUBLIC,
        ("POST", "/api/auth/refresh"): PUBLIC,
        ("POST", "/api/auth/forgot"): PUBLIC,
        ("POST", "/api/auth/reset"): PUBLIC,
        ("POST", "/api/auth/accept"): PUBLIC,
        ("GET", "/api/invitations"): _rule(Right.PEOPLE_ADMIN),
        ("POST", "/api/invitations"): _rule(Right.PEOPLE_ADMIN),
        ("DELETE", "/api/invitations/{invitation_id}"): _rule(Right.PEOPLE_ADMIN),
        ("GET", "/api/auth/oidc/login"): PUBLIC,
        ("GET", "/api/auth/oidc/callback"): PUBLIC,
        ("POST", "/api/auth/logout"): _rule(Right.PROFILE_WRITE),
        ("POST", "/api/auth/logout-everywhere"): _rule(Right.PROFILE_WRITE),
        ("GET", "/api/auth/logins"): _rule(Right.PROFILE_READ),
        ("DELETE", "/api/auth/logins/{login_id}"): _rule(Right.PROFILE_WRITE),
        ("PUT", "/api/auth/password"): _rule(Right.PROFILE_WRITE),
        ("POST", "/api/auth/switch"): _rule(Right.PROFILE_WRITE),
        ("GET", "/api/me"): _rule(Right.PROFILE_READ),
        ("PUT", "/api/me"): _rule(Right.PROFILE_WRITE),
        ("GET", "/api/me/preferences"): _rule(Right.PROFILE_READ),
        ("PUT", "/api/me/preferences"): _rule(Right.PROFILE_WRITE),
        ("GET", "/api/me/usage"): _rule(Right.PROFILE_READ),
        ("GET", "/api/me/quotas"): _rule(Right.PROFILE_READ),
        # sessions
        ("POST", "/api/sessions"): _rule(Right.SESSIONS_WRITE),
        ("GET", "/api/sessions"): _READ,
        ("GET", _SESSION): _READ,
        ("PUT", _SESSION): _WRITE,
        ("DELETE", _SESSION): _WRITE,
        ("POST", f"{_SESSION}/archive"): _WRITE,
        ("POST", f"{_SESSION}/suspend"): _WRITE,
        ("POST", f"{_SESSION}/resume"): _EXECUTE,
        ("POST", f"{_SESSION}/fork"): _WRITE,
        ("GET", f"{_SESSION}/config"): _READ,
        ("PUT", f"{_SESSION}/config"): _WRITE,
        ("POST", f"{_SESSION}/reload"): _WRITE,
        ("GET", "/api/mcp/templates"): _READ,
        ("GET", f"{_SESSION}/mcp"): _READ,
        ("POST", f"{_SESSION}/mcp"): _WRITE,
        ("GET", f"{_SESSION}/mcp/{{name}}"): _READ,
        ("PUT", f"{_SESSION}/mcp/{{name}}"): _WRITE,
        ("DELETE", f"{_SESSION}/mcp/{{name}}"): _WRITE,
        # conversation
        ("POST", f"{_SESSION}/chat"): SEND,
        ("POST", f"{_SESSION}/chat/stream"): SEND,
        ("POST", f"{_SESSION}/cancel"): CANCEL,
        ("GET", f"{_SESSION}/messages"): _READ,
        ("PUT", f"{_SESSION}/messages/{{message_id}}"): SEND,
        ("DELETE", f"{_SESSION}/messages/{{message_id}}"): CANCEL,
        ("GET", f"{_SESSION}/events"): _READ,
        ("WS", "/ws/chat/{session_id}"): _READ,  # each frame that does something takes what its route does
        # kernel
        ("GET", f"{_SESSION}/kernel"): _READ,
        ("GET", f"{_SESSION}/kernel/variables"): _READ,
        ("POST", f"{_SESSION}/kernel/execute"): _EXECUTE,
        ("POST", f"{_SESSION}/kernel/interrupt"): _EXECUTE,
        ("POST", f"{_SESSION}/kernel/restart"): _EXECUTE,
        ("POST", f"{_SESSION}/kernel/reset"): _EXECUTE,
        ("POST", f"{_SESSION}/kernel/complete"): _EXECUTE,  # completing looks at objects, which runs their code
        # files
        ("POST", f"{_SESSION}/files"): _WRITE,
        ("GET", f"{_SESSION}/files"): _READ,
        ("GET", f"{_SESSION}/files/{{name}}"): _READ,
        ("DELETE", f"{_SESSION}/files/{{name}}"): _WRITE,
        ("POST", f"{_SESSION}/uploads"): _WRITE,
        ("GET", f"{_SESSION}/uploads/{{upload_id}}"): _READ,
        ("PATCH", f"{_SESSION}/uploads/{{upload_id}}"): _WRITE,
        ("DELETE", f"{_SESSION}/uploads/{{upload_id}}"): _WRITE,
        ("GET", f"{_SESSION}/artifacts"): _READ,
        ("GET", f"{_SESSION}/artifacts/{{name}}"): _READ,
        ("GET", "/api/artifacts/{artifact_id}"): _READ,
        ("GET", "/api/artifacts/{artifact_id}/versions"): _READ,
        ("GET", f"{_SESSION}/notebook"): _READ,
        ("GET", f"{_SESSION}/export"): _READ,
        ("POST", f"{_SESSION}/notebook/sync"): _WRITE,
        ("GET", "/api/search"): _READ,
        # keys
        ("GET", "/api/keys"): _rule(Right.PROFILE_READ),
        ("POST", "/api/keys"): _rule(Right.KEYS_WRITE),
        ("DELETE", "/api/keys"): _rule(Right.KEYS_WRITE),
        ("GET", "/api/keys/{key_id}"): _rule(Right.PROFILE_READ),
        ("DELETE", "/api/keys/{key_id}"): _rule(Right.KEYS_WRITE),
        ("POST", "/api/tickets"): _rule(Right.SESSIONS_READ),  # it opens what reads a session
        # people
        ("GET", "/api/users"): _rule(Right.TEAMS_WRITE),  # whom one can take into a team
        ("POST", "/api/users"): _rule(Right.PEOPLE_ADMIN),
        ("GET", "/api/users/{user_id}"): _rule(Right.TEAMS_WRITE),
        ("PUT", "/api/users/{user_id}"): _rule(Right.PEOPLE_ADMIN),
        ("GET", "/api/teams"): _rule(Right.PROFILE_READ),
        ("POST", "/api/teams"): _rule(Right.TEAMS_WRITE),
        ("GET", "/api/teams/{team_id}"): _rule(Right.PROFILE_READ),
        ("PUT", "/api/teams/{team_id}"): _rule(Right.TEAMS_WRITE),
        ("DELETE", "/api/teams/{team_id}"): _rule(Right.TEAMS_WRITE),
        ("GET", "/api/teams/{team_id}/members/{user_id}"): _rule(Right.PROFILE_READ),
        ("PUT", "/api/teams/{team_id}/members/{user_id}"): _rule(Right.TEAMS_WRITE),
        ("DELETE", "/api/teams/{team_id}/members/{user_id}"): _rule(Right.PROFILE_WRITE),  # everybody may go
        # sharing
        ("GET", f"{_SESSION}/teams"): _READ,
        ("GET", f"{_SESSION}/teams/{{team_id}}"): _READ,
        ("PUT", f"{_SESSION}/teams/{{team_id}}"): _WRITE,
        ("DELETE", f"{_SESSION}/teams/{{team_id}}"): _WRITE,
        ("POST", f"{_SESSION}/share"): _WRITE,
        ("GET", f"{_SESSION}/share"): _WRITE,
        ("GET", f"{_SESSION}/share/{{link_id}}"): _WRITE,
        ("DELETE", f"{_SESSION}/share/{{link_id}}"): _WRITE,
        ("GET", "/api/shared/{token}"): PUBLIC,  # the link is the key
        ("GET", "/api/shared/{token}/messages"): PUBLIC,
        ("GET", "/api/shared/{token}/notebook"): PUBLIC,
        ("GET", "/api/shared/{token}/artifacts"): PUBLIC,
        ("GET", "/api/shared/{token}/artifacts/{artifact_id}"): PUBLIC,
        # agents
        ("GET", "/api/agents"): _rule(Right.AGENTS_READ),
        ("POST", "/api/agents"): _rule(Right.AGENTS_WRITE),
        ("GET", "/api/agents/{agent_id}"): _rule(Right.AGENTS_READ),
        ("PUT", "/api/agents/{agent_id}"): _rule(Right.AGENTS_WRITE),
        ("DELETE", "/api/agents/{agent_id}"): _rule(Right.AGENTS_WRITE),
        ("GET", "/api/agents/{agent_id}/teams/{team_id}"): _rule(Right.AGENTS_READ),
        ("PUT", "/api/agents/{agent_id}/teams/{team_id}"): _rule(Right.AGENTS_WRITE),
        ("DELETE", "/api/agents/{agent_id}/teams/{team_id}"): _rule(Right.AGENTS_WRITE),
        # keys of model providers; those of the tenant take more
        ("GET", "/api/provider-keys"): _rule(Right.PROFILE_READ),
        ("GET", "/api/provider-keys/{provider}"): _rule(Right.PROFILE_READ),
        ("PUT", "/api/provider-keys/{provider}"): _rule(Right.KEYS_WRITE),
        ("DELETE", "/api/provider-keys/{provider}"): _rule(Right.KEYS_WRITE),
        # administration
        ("GET", "/api/audit"): _rule(Right.TENANT_READ),
        ("GET", "/api/audit/export"): _rule(Right.TENANT_READ),
        ("GET", "/api/audit/verify"): _rule(Right.TENANT_READ),
        ("GET", "/api/jobs"): _rule(Right.TENANT_ADMIN),
        ("GET", "/api/jobs/{job_id}"): _rule(Right.TENANT_ADMIN),
        ("POST", "/api/jobs/{job_id}/retry"): _rule(Right.TENANT_ADMIN),
        ("POST", "/api/jobs/{job_id}/cancel"): _rule(Right.TENANT_ADMIN),
        ("GET", "/api/usage"): _rule(Right.TENANT_READ),
        ("GET", "/api/quotas"): _rule(Right.TENANT_READ),
        ("PUT", "/api/quotas"): _rule(Right.TENANT_ADMIN),
        # models
        ("GET", "/api/models"): _rule(Right.MODELS_READ),
        ("GET", "/api/models/{name}/validate"): _rule(Right.MODELS_READ),
    }
)


def rule_of(method: str, path: str) -> Rule:
    """Return the rule of a route that asks who calls.

    Parameters
    ----------
    path
        The route's template, converters and all. `HEAD` takes what `GET` does.

    Raises
    ------
    PermissionDenied
        It has none: whoever makes a route says here what it takes.
    """
    rule = RULES.get(("GET" if method == "HEAD" else method, path.replace(":path", "")))
    if rule is None:
        raise PermissionDenied(f"nobody may do this: {method} {path} has no rule", code="no_rule")
    return rule


def require(principal: Principal, rule: Rule) -> None:
    """Check that a principal has all rights of a rule.

    Raises
    ------
    PermissionDenied
        One is missing; the message names it.
    """
    for right in sorted(rule.rights):
        principal.require(right)
