"""Whether the gateway lives, whether its parts answer, and what it is."""
