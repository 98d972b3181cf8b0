"""Writes that can be sent again: what a request with an `Idempotency-Key` did, and what it was answered."""
