"""Conversations: a message starts a run, the supervisor drives it, its events are what callers see."""
