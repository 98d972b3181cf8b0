"""Which bind addresses, Host and Origin headers are allowed: pure functions without input or output.

The local executor isolates nothing, so its gateway serves one person on loopback. A web page that this person has open
must not be able to use it: a foreign page has a foreign Origin, and a page that rebinds its own DNS name to 127.0.0.1
has a foreign Host (docs/security, threat 60). Keys are checked elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from carrel_gateway.errors import CarrelError
from carrel_gateway.settings import Settings

_HOST: Final = re.compile(r"(?:\[(?P<address>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9._-]{1,253}))(?::[0-9]{0,5})?")
"""Source: RFC 3986, 3.2.2, without the forms that no host of today has."""


class ExposedLocalExecutor(CarrelError):
    """The gateway would offer unisolated kernels to other machines; it does not start."""

    code = "exposed_local_executor"


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Return whether the address or name means this machine alone."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse_exposure(settings: Settings) -> None:
    """Refuse to listen on another address than loopback while kernels are not isolated.

    Raises
    ------
    ExposedLocalExecutor
        The executor is `local` and the address is not loopback.
    """
    if settings.executor_type == "local" and not is_loopback(settings.host):
        raise ExposedLocalExecutor(
            f"refusing to listen on {settings.host}: the local executor runs code as you, without isolation, and "
            "serves one person on this machine. Use --host 127.0.0.1, or set CARREL_EXECUTOR_TYPE=kubernetes.",
        )


def host_name(header: str) -> str | None:
    """Return the name in a Host header, in lower case and without its port; none where it is not of that form."""
    found = _HOST.fullmatch(header.lower())
    return (found["address"] or found["name"]) if found else None


def host_allowed(header: str, *, allowed: Collection[str], loopback_only: bool) -> bool:
    """Return whether a request may name this host.

    Parameters
    ----------
    header
        The Host header as it came.
    allowed
        Names that are allowed by settings; empty means any, unless `loopback_only`.
    loopback_only
        The executor is local: names of this machine, and `allowed`, are the only ones.
    """
    name = host_name(header)
    if name is None:
        return not (header or loopback_only or allowed)  # HTTP/1.0 knows requests without it
    if name in {item.lower() for item in allowed}:
        return True
    return is_loopback(name) if loopback_only else not allowed


def origin_allowed(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Return whether a page of this origin may call: none (no browser), the gateway's own, or one of the settings."""
    if origin is None:
        return True
    if origin in allowed:
        return True
    scheme, separator, authority = origin.partition("://")
    return bool(separator) and scheme in {"http", "https"} and authority.lower() == host.lower()
