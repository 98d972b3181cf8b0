"""Turns what a kernel host refuses, or its silence, into the gateway's own errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from carrel_gateway.errors import (
    CarrelError,
    Conflict,
    InvalidInput,
    KernelLost,
    NotFound,
    TooLarge,
    TooMany,
    Unavailable,
)
from carrel_gateway.kernels.ndjson import LineTooLongError, TornLineError
from carrel_gateway.kernels.streams import UnreachableError
from carrel_wire.host import ErrorBody

_BY_STATUS: dict[int, type[CarrelError]] = {
    400: InvalidInput,
    404: NotFound,
    409: Conflict,
    410: Conflict,
    413: TooLarge,
    422: InvalidInput,
    429: TooMany,
}


def refusal(status: int, body: bytes) -> CarrelError:
    """Return the error for a reply of a kernel host; its `code` is the host's own."""
    try:
        said = msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ErrorBody(code="unavailable", message=f"The kernel host answered with status {status}.")
    # What is the caller's fault, a wrong snapshot, comes below: otherwise the gateway's own token was refused.
    if status in (401, 403) and said.code != "snapshot_refused":
        return Unavailable(
            "The kernel host does not trust this gateway; its key set must hold the gateway's public key.",
            code="kernel_refused",
            reason=said.code,
        )
    return _BY_STATUS.get(status, Unavailable)(said.message, code=said.code, **_safe(said))


def _safe(said: ErrorBody) -> dict[str, Any]:
    return {key: value for key, value in said.detail.items() if key not in ("code", "retry_after_seconds", "message")}


@asynccontextmanager
async def converted() -> AsyncGenerator[None, None]:
    """Turn failures of the transport into `KernelLost`.

    Raises
    ------
    KernelLost
        The host is away, or what it sent was cut or is not of the protocol. The code is `kernel_unreachable` where
        no connection came about, so that nothing can have been sent.
    """
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, UnreachableError) as error:
        raise KernelLost("The kernel host cannot be reached.", code="kernel_unreachable") from error
    except (TimeoutError, aiohttp.ClientError, ConnectionError, TornLineError) as error:
        raise KernelLost("The connection to the kernel host was lost.") from error
    except (msgspec.DecodeError, LineTooLongError) as error:
        raise KernelLost("The kernel host sent what is not of its protocol.", code="kernel_protocol") from error
