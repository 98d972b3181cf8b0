"""Several gateways over one Postgres and one Redis, all of it to be struck while people work."""
