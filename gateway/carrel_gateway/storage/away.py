"""A database that cannot be used now, in the words that every way to it has for that."""

from __future__ import annotations

from carrel_gateway.errors import Unavailable


class DatabaseAway(Unavailable):
    """The database does not answer, or cannot write."""

    code = "database_away"


def away() -> DatabaseAway:
    """Return what is said of a database that is gone, hangs, is overloaded or cannot write."""
    return DatabaseAway("the database does not answer or cannot write; try again soon")


def full() -> DatabaseAway:
    """Return what is said when no connection came free in time."""
    return DatabaseAway("all connections to the database are in use; try again soon")
