"""How often somebody may call: by principal, and by address for those who are nobody yet.

Neither a path nor a method nor a key is part of a budget: other spellings and other keys of the same user share it. An
address is that of the connection, or what a trusted proxy says of it (`web.address`). Quotas of what calls bring about
are elsewhere.
"""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

from carrel_gateway.context import Principal
from carrel_gateway.errors import TooMany
from carrel_gateway.rates.metrics import REFUSED
from carrel_gateway.settings import Settings
from carrel_gateway.storage.windows import Windows

WINDOW_SECONDS: Final = 10
"""So long a burst may be: the limit of a second holds on average over it."""
LOGIN_WINDOW_SECONDS: Final = 60
LOGIN_PREFIX: Final = "/api/auth/"
_LOGIN_COSTS: Final = {"/api/auth/refresh": 1, "/api/auth/logout": 1, "/api/auth/register": 5, "/api/auth/forgot": 5}
"""By route. To go on with a login is no guess; what sends mail costs somebody else something."""
_LOGIN_COST: Final = 2

_Limit: TypeAlias = Literal["principal", "message", "address", "login"]


class RateLimits:
    """The limits of one gateway, over counters that may be shared by all."""

    def __init__(self, settings: Settings, windows: Windows) -> None:
        self._windows = windows
        self._principal = math.ceil(settings.principal_rate * WINDOW_SECONDS)
        self._address = math.ceil(settings.address_rate * WINDOW_SECONDS)
        self._login = math.ceil(settings.login_rate)

    async def count(self, principal: Principal, *, message: bool = False) -> None:
        """Count a call, or a message over an open connection, of somebody who is known.

        Raises
        ------
        TooMany
            It is one too many; the error says when there is room again.
        """
        if self._principal:
            key = f"p:{principal.tenant_id}:{principal.user_id}"
            await self._hit(key, self._principal, WINDOW_SECONDS, 1, "message" if message else "principal")

    async def count_stranger(self, address: str, route: str) -> None:
        """Count a call of somebody who is not known, to a route by its template; raises `TooMany`."""
        if route.startswith(LOGIN_PREFIX):
            if self._login:
                cost = _LOGIN_COSTS.get(route, _LOGIN_COST)
                await self._hit(f"l:{address}", max(self._login, cost), LOGIN_WINDOW_SECONDS, cost, "login")
        elif self._address:
            await self._hit(f"a:{address}", self._address, WINDOW_SECONDS, 1, "address")

    async def _hit(self, key: str, limit: int, seconds: int, cost: int, kind: _Limit) -> None:
        waits = await self._windows.hit(key, limit=limit, seconds=seconds, cost=cost)
        if waits:
            REFUSED.labels(kind).inc()
            raise TooMany(
                f"too many calls: at most {limit} in {seconds} s; wait as long as Retry-After says",
                code="rate_limited",
                retry_after_seconds=max(math.ceil(waits), 1),
                reason="rate",
            )
