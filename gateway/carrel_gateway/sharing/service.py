"""What other features use of sharing."""

from __future__ import annotations

from carrel_gateway.sharing.tables import agent_shares, session_shares
from carrel_gateway.sharing.teams import Access, ExpectedShare, Level, TeamShare, TeamShares, no_share, require_team

__all__ = [
    "AGENTS",
    "SESSIONS",
    "Access",
    "ExpectedShare",
    "Level",
    "TeamShare",
    "TeamShares",
    "no_share",
    "require_team",
]

AGENTS = TeamShares(agent_shares)
SESSIONS = TeamShares(session_shares)
