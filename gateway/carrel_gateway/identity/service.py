"""The one account of this form of Carrel: whoever presents the key (see `keys`) is the default user of the tenant.

The first migration makes its rows, so they are there wherever the schema is.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

DEFAULT_TENANT_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
DEFAULT_USER_ID: Final = UUID("00000000-0000-7000-8000-000000000002")
