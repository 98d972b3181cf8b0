"""Agents that people configured: model, instructions and limits under a name, for sessions to begin with."""
