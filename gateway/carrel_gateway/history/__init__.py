"""The append-only log of a session, and the read models that are filled from it."""
