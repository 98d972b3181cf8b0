"""How much a user, a team and a tenant may have or do, counted so that nothing goes beyond it."""
