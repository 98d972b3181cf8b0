"""Sessions that are put to rest with their state, woken, and forked."""
