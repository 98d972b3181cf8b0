"""The address that a connection comes from, as far as it can be trusted. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

UNKNOWN: Final = "unknown"
"""Of a Unix socket, or of what is no address."""
_IPV6_PREFIX: Final = 64
"""One customer has at least so much; single addresses would be as many budgets as anybody likes."""


def client_address(scope: Any, *, trusted_proxies: int) -> str:
    """Return the caller's address: the connection's or, behind so many proxies, what the outermost of them saw.

    Each proxy appends the address that it was called from to `X-Forwarded-For`; whatever stands further left was sent
    by the caller, who can write there what they like.

    Parameters
    ----------
    scope
        The ASGI scope of a request or a WebSocket.
    trusted_proxies
        Number of proxies that every request passes through; with 0 the header is not read.
    """
    client = scope.get("client")
    peer = _canonical(client[0]) if client else None
    if trusted_proxies:
        hops = list(_forwarded(scope.get("headers", ())))
        if hops:
            return _canonical(hops[max(len(hops) - trusted_proxies, 0)]) or peer or UNKNOWN
    return peer or UNKNOWN


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    for name, value in headers:
        if name.lower() == b"x-forwarded-for":
            yield from value.decode("latin-1").split(",")


def _canonical(text: str) -> str | None:
    """Return the address in the one form that counts, or none when it is no address."""
    text = text.strip().strip('"')
    if text.startswith("["):  # [2001:db8::1]:443
        text = text.partition("]")[0].strip("[")
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
