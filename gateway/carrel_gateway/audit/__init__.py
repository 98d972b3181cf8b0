"""Who did what, kept so that a change of it shows."""
