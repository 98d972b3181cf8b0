"""Snapshots of sessions in the object store: taken from kernel hosts, brought back to them, copied for forks."""
