"""`carrel login`, `logout`, `whoami` and `keys`: who one is at a server, and the keys one has there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.table import Table

from carrel_cli.errors import Usage
from carrel_cli.logins import StoredLogin
from carrel_cli.servers import checked
from carrel_cli.show import line
from carrel_client import Client, Key


def log_in(url: str, email: str, password: str, tenant_id: str | None) -> dict[str, Any]:
    """Log in at a server, keep the login for later commands, and return who one is there."""
    address = checked(url)
    with Client(address) as client:
        StoredLogin(address).start(client.log_in(email, password, tenant_id=tenant_id))
        return client.me()


def log_out(url: str) -> bool:
    """End the login of a server; false when there is none."""
    stored = StoredLogin(url)
    if not stored.exists():
        return False
    try:
        with Client(stored.url, login=stored) as client:
            client.log_out()
    finally:
        stored.forget()  # whatever the server says: this machine has it no longer
    return True


def require_named(url: str | None) -> str:
    """Return the address of the server that was named.

    Raises
    ------
    Usage
        None was.
    """
    if not url:
        raise Usage("name the server: --server https://…, or the variable CARREL_SERVER")
    return url.rstrip("/")


def end_of(days: float | None) -> datetime | None:
    """Return when a key that lives for so many days ends."""
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def who(profile: dict[str, Any], url: str) -> str:
    """Return in words who one is."""
    name = profile["email"] or profile["name"]
    tenants = {tenant["id"]: tenant["name"] for tenant in profile["tenants"]}
    return f"{name}, {profile['role']} of {tenants.get(profile['tenant_id'], profile['tenant_id'])} at {url}"


def key_table(keys: Iterable[Key], *, owners: bool = False) -> Table:
    """Return keys as a table, one a row; with whose they are and who made them, or without."""
    table = Table(box=None, pad_edge=False)
    more = ("REVOKED", "ACCOUNT", "MADE BY") if owners else ("REVOKED",)
    for heading in ("ID", "NAME", "ENDS WITH", "SCOPES", "EXPIRES", "LAST USED", *more):
        table.add_column(heading, no_wrap=heading in ("ID", "ACCOUNT", "MADE BY"))
    for key in keys:
        scopes = "all of its owner's" if key.scopes is None else ", ".join(key.scopes)
        told = (key.id, key.name, key.hint, scopes, _day(key.expires_at, "never"), _day(key.used_at, "not yet"))
        told += (_day(key.revoked_at, "no"), *((key.user_id, key.maker_id or "not known") if owners else ()))
        table.add_row(*map(line, told))
    return table


def _day(time: datetime | None, none: str) -> str:
    return none if time is None else f"{time:%Y-%m-%d %H:%M}"
