"""Steps from one schema to the next, run by `carrel_gateway.storage.migrate`."""
