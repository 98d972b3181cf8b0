"""The default user of the default tenant: whoever presents the key of the installation (see `keys`).

The first migration makes the rows of both, so they are there wherever the schema is.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from carrel_gateway.context import Principal

DEFAULT_TENANT_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
DEFAULT_USER_ID: Final = UUID("00000000-0000-7000-8000-000000000002")


def default_principal() -> Principal:
    """Return the default user, with all rights of the tenant."""
    return Principal(tenant_id=DEFAULT_TENANT_ID, user_id=DEFAULT_USER_ID)
