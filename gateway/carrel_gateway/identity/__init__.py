"""Who calls: tenants, users, and the key that callers present."""
