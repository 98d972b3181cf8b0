"""Settings that follow from others, and what is said of values that cannot be used; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from carrel_gateway.sources.choosing import Found


def derived(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with those that follow from others: the URL of Redis from its parts, the model's provider."""
    whole = dict(given)
    if given.get("redis_host") and not given.get("redis_url"):
        whole["redis_url"] = _redis_url(given)
    if provider := given.get("llm_provider"):
        name = given.get("llm_model")
        if isinstance(name, str) and "/" not in name:
            whole["llm_model"] = f"{provider}/{name}"
    return whole


def _redis_url(given: Mapping[str, Any]) -> str:
    password = given.get("redis_password")
    secret = password.get_secret_value() if isinstance(password, SecretStr) else password
    login = f":{quote(str(secret), safe='')}@" if secret else ""
    host = str(given["redis_host"])
    where = f"[{host}]" if ":" in host else host
    return f"redis://{login}{where}:{given.get('redis_port', 6379)}/{given.get('redis_db', 0)}"


def told(error: ValidationError, found: Found, given: Collection[str]) -> list[str]:
    """Return a line for each value that cannot be used: where it is and why, without the value.

    Parameters
    ----------
    given
        Settings that were not read, but given by the program.
    """
    lines: list[str] = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        origin = None if name in given else found.origins.get(name)
        inside = "".join(f".{part}" for part in item["loc"][1:])
        lines.append(f"{f'{origin or name}{inside}: ' if name else ''}{item['msg'].removeprefix('Value error, ')}")
    return lines
