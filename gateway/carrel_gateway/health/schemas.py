"""Replies of the health routes."""

from __future__ import annotations

from typing import Literal

from carrel_gateway.web.fields import ReplyBody


class Health(ReplyBody):
    """The process answers."""

    status: Literal["ok"] = "ok"


class PartHealth(ReplyBody):
    """One part that the gateway works with."""

    status: Literal["ok", "away", "not_checked"]
    latency_milliseconds: float | None = None
    message: str | None = None


class Readiness(ReplyBody):
    """`degraded`: it serves, but not everything; only without its database it is `away`."""

    status: Literal["ok", "degraded", "away"]
    parts: dict[str, PartHealth]


class Info(ReplyBody):
    """What this server is."""

    name: Literal["carrel"] = "carrel"
    version: str
    executor: str
    isolated: bool
    """Whether code of users is kept apart from this machine. The local executor keeps nothing apart."""
    database: Literal["sqlite", "postgresql"]
    storage: str
    bus: Literal["in_process", "redis"]
    default_model: str
    upload_max_bytes: int
    oidc: bool
    """Whether people sign in with another server, at `/api/auth/oidc/login`."""
    uptime_seconds: float
