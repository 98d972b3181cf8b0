"""Conversations: their rows, their life from creation to deletion."""
