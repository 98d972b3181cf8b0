"""Typed keys under which the application and a request carry what belongs to them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from carrel_kernel.clients import Clients
from carrel_kernel.reaching import Reaches
from carrel_kernel.supervisor import Supervisor
from carrel_wire.tokens import Grant

SUPERVISOR: Final = web.AppKey("supervisor", Supervisor)
CLIENTS: Final = web.AppKey("clients", Clients)
REACHES: Final = web.AppKey("reaches", Reaches)
GRANT: Final = web.RequestKey("grant", Grant)
