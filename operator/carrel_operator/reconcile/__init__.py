"""Decides what sessions and pools need next. Pure: nothing here asks or writes anything.

It looks at levels, not at events: called twice with the same arguments it wants the same, and every action may be
carried out twice.
"""

from carrel_operator.reconcile.pool import reconcile_pool
from carrel_operator.reconcile.session import reconcile

__all__ = ["reconcile", "reconcile_pool"]
