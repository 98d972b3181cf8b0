"""Runs of the agent: one active per session, with an owner, a generation and a lease."""
