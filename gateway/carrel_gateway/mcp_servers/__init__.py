"""MCP servers that a session is to have the tools of: stored and checked, and not spoken to from here."""
