"""What commands, addresses, variables and headers of MCP servers may be. Pure.

What is refused is not repeated: it may be a secret in the wrong place. To which machine a name leads is looked at by
whoever connects, not here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import SecretStr

NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,39}$"
MAX_SECRETS: Final = 64
MAX_ARGUMENTS: Final = 64
_MAX_COMMAND: Final = 16_384
_MAX_URL: Final = 2048
_MAX_VALUES: Final = 32_768
"""Bytes of all values of a server together."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|[0-9A-Fa-f:.]{2,45}")
_SECRET_PARAMETER: Final = re.compile(r"key|token|secret|passw|auth|credential|signature", re.IGNORECASE)
_URL_WITH_PASSWORD: Final = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_6: Final = ipaddress.IPv6Address("::1")
_OF_THE_CONNECTION: Final = frozenset(
    {
        "accept",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that whoever speaks to the server sets; so are those that begin with `mcp-` and `proxy-`."""


def command(arguments: list[str]) -> list[str]:
    """Return a command that can be one; raise `ValueError` with what to do otherwise."""
    if not arguments[0].strip():
        raise ValueError("the first of a command is the program; it must not be empty")
    if _bytes_of(arguments) > _MAX_COMMAND:
        raise ValueError(f"a command has at most {_MAX_COMMAND} bytes")
    if any(_URL_WITH_PASSWORD.search(argument) for argument in arguments):
        raise ValueError("a command is shown to whoever may read the session; give the server its password in `env`")
    return arguments


def url(text: str) -> str:
    """Return an address that can be one; raise `ValueError` with what to do otherwise."""
    if len(text) > _MAX_URL or not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", text):
        raise ValueError(f"an address is printable ASCII without spaces and backslashes, at most {_MAX_URL} characters")
    parts, host = _parts_of(text)
    if "@" in parts.netloc or any(_SECRET_PARAMETER.search(name) for name, _ in parse_qsl(parts.query, True)):
        raise ValueError("an address is shown to whoever may read the session; give what is secret in `headers`")
    if "#" in text:
        raise ValueError("an address has no part after `#`, which would not be sent")
    if not is_secure(text) and not _is_loopback(host):
        raise ValueError("an address begins with https://; http:// is for this machine alone")
    return text


def is_secure(text: str) -> bool:
    """Return whether an address is reached over TLS."""
    return text[:8].lower() == "https://"


def variables(values: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    """Return the environment of a server; raise `ValueError` with what to do otherwise."""
    if not all(_VARIABLE.fullmatch(name) for name in values):
        raise ValueError("a variable's name is A-Z, a-z, 0-9 and _, not a digit first, at most 128 characters")
    if any("\0" in value.get_secret_value() for value in values.values()):
        raise ValueError("a variable's value must not hold the character NUL")
    return _bounded(values)


def headers(values: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    """Return the headers that a server is sent; raise `ValueError` with what to do otherwise."""
    names = [name.lower() for name in values]
    if not all(_HEADER.fullmatch(name) for name in values):
        raise ValueError("a header's name is a token of RFC 9110, at most 128 characters")
    if len(names) != len(set(names)):
        raise ValueError("a header is named twice; capitals do not tell them apart")
    if any(name in _OF_THE_CONNECTION or name.startswith(("mcp-", "proxy-")) for name in names):
        raise ValueError("headers of the connection and of the protocol are set by whoever connects; leave them out")
    if not all(_HEADER_VALUE.fullmatch(value.get_secret_value()) for value in values.values()):
        raise ValueError("a header's value is printable ASCII without spaces around it")
    return _bounded(values)


def _bounded(values: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    if _bytes_of(value.get_secret_value() for value in values.values()) > _MAX_VALUES:
        raise ValueError(f"all values together have at most {_MAX_VALUES} bytes")
    return values


def _bytes_of(texts: Iterable[str]) -> int:
    try:
        return sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:
        raise ValueError("text must not hold half a surrogate pair") from None


def _parts_of(text: str) -> tuple[SplitResult, str]:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, SplitResult("", "", "", "", "")
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host) or port == 0:
        raise ValueError("an address is https://host/path, with a port where it is another one than 443")
    return parts, host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in _LOOPBACK if address.version == 4 else address == _LOOPBACK_6
