"""The MCP servers that are well known: how each is started or reached, and what it must be given. No secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from carrel_gateway.mcp_servers.repository import Target


@dataclass(frozen=True, slots=True)
class Template:
    """A well-known server."""

    name: str
    description: str
    target: Target
    """A command (stdio) or an address (http)."""
    secrets: list[str] = field(default_factory=list[str])
    """Names of what it must be given: variables of the environment (stdio) or headers (http)."""


_ALL: Final = (
    Template(
        "fetch", "Fetches web pages as text, as far as the session's pod may reach them.", ["uvx", "mcp-server-fetch"]
    ),
    Template(
        "filesystem",
        "Reads, writes and searches files of the workspace.",
        ["npx", "-y", "@modelcontextprotocol/server-filesystem", "."],
    ),
    Template(
        "git",
        "Status, differences, history and commits of a repository in the workspace.",
        ["uvx", "mcp-server-git", "--repository", "."],
    ),
    Template(
        "github",
        "Repositories, issues and pull requests of GitHub; `Authorization` is `Bearer <token>`.",
        "https://api.githubcopilot.com/mcp/",
        ["Authorization"],
    ),
    Template(
        "memory",
        "Keeps notes as a graph of things and how they belong together.",
        ["npx", "-y", "@modelcontextprotocol/server-memory"],
    ),
    Template(
        "postgres",
        "Looks into a Postgres database, reading only; `DATABASE_URI` is its address with user and password.",
        ["uvx", "postgres-mcp", "--access-mode=restricted"],
        ["DATABASE_URI"],
    ),
    Template(
        "sqlite",
        "Queries a SQLite file of the workspace.",
        ["uvx", "mcp-server-sqlite", "--db-path", "data.db"],
    ),
    Template("time", "Tells the time, and converts it between zones.", ["uvx", "mcp-server-time"]),
)
TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType({template.name: template for template in _ALL})
