"""Keys of model providers that people and tenants bring along."""
