"""What the audit log tells of: a closed list, so that it can be filtered by and counted."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """`<kind of target>.<what was done to it>`."""

    SESSION_ARCHIVED = "session.archived"
    SESSION_DELETED = "session.deleted"
    SESSION_SHARED = "session.shared"
    SESSION_UNSHARED = "session.unshared"
    LINK_MADE = "session.link-made"
    LINK_REVOKED = "session.link-revoked"
    SESSION_REMOVED = "session.removed"
    """Nothing is left of it; the detail has the numbers of rows and objects."""
    AUDIT_EXPORTED = "audit.exported"
    USER_ADDED = "user.added"
    USER_INVITED = "user.invited"
    USER_UNINVITED = "user.uninvited"
    USER_CHANGED = "user.changed"
    USER_JOINED = "user.joined"
    """Came into the tenant, by what the detail says."""
    USER_REMOVED = "user.removed"
    """Joined, and lost the race for the account: is no user again."""
    USER_LINKED = "user.linked"
    """Can sign in with the provider from now on."""
    LOGIN_OPENED = "login.opened"
    LOGIN_REFUSED = "login.refused"
    LOGIN_ENDED = "login.ended"
    LOGIN_ALL_ENDED = "login.all-ended"
    LOGIN_REVOKED = "login.revoked"
    """A refresh token of it was used twice or by another client."""
    PASSWORD_CHANGED = "password.changed"  # noqa: S105 - the name of an action
    PASSWORD_RESET = "password.reset"  # noqa: S105 - the name of an action
    TEAM_FOUNDED = "team.founded"
    TEAM_RENAMED = "team.renamed"
    TEAM_DELETED = "team.deleted"
    MEMBER_PUT = "member.put"
    MEMBER_REMOVED = "member.removed"
    KEY_MADE = "key.made"
    KEY_REVOKED = "key.revoked"
    KEY_ALL_REVOKED = "key.all-revoked"
    PROVIDER_KEY_STORED = "provider-key.stored"
    PROVIDER_KEY_REMOVED = "provider-key.removed"
    MCP_SERVER_STORED = "mcp-server.stored"
    MCP_SERVER_REMOVED = "mcp-server.removed"
    QUOTA_SET = "quota.set"
    """Or taken away, with a limit that is null."""
    AGENT_STORED = "agent.stored"
    AGENT_CHANGED = "agent.changed"
    AGENT_DELETED = "agent.deleted"
    AGENT_SHARED = "agent.shared"
    AGENT_UNSHARED = "agent.unshared"
    JOB_RETRIED = "job.retried"
    JOB_CANCELLED = "job.cancelled"

    @property
    def group(self) -> str:
        """The kind of target."""
        return self.value.partition(".")[0]
