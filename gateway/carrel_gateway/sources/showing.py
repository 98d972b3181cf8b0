"""What the settings in force are and where each came from, fit to be shown: secrets are told apart from values.

Settings that cannot be used are shown as they were read, beside the reasons for which nothing starts with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from pydantic import BaseModel, SecretStr

from carrel_gateway.settings import Settings, names
from carrel_gateway.sources.choosing import Found, Origin, choose
from carrel_gateway.sources.reading import ENV_FILES, InvalidSettings, read_layers

HIDDEN: Final = "********"
_SECRET_WORDS: Final = ("key", "secret", "pass", "token", "sig")


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting."""

    name: str
    variable: str
    value: Any
    """As JSON has it; secrets are hidden."""
    origin: Origin | None
    """None where nothing sets it."""
    derived: bool = False
    """Whether it follows from other settings."""

    @property
    def source(self) -> str:
        """Where the value came from, in words."""
        return str(self.origin) if self.origin else "other settings" if self.derived else "default"


@dataclass(frozen=True, slots=True)
class Overview:
    """All settings, and what is to be said of them."""

    settings: list[Shown]
    warnings: list[str]
    problems: list[str]


def overview(env_files: Sequence[str | Path] = ENV_FILES) -> Overview:
    """Return all settings as a gateway that starts now would have them.

    Raises
    ------
    InvalidSettings
        A place cannot be read.
    """
    found = choose(names(), read_layers(env_files))
    try:
        settings = Settings(_env_file=env_files)
    except InvalidSettings as error:
        return Overview([_raw(name, found) for name in names().of], found.warnings, error.message.splitlines())
    return Overview([_shown(name, settings) for name in names().of], found.warnings, [])


def masked(value: Any) -> Any:
    """Return a value as JSON has it, with everything hidden that is secret in it."""
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return {name: masked(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {
            str(name): HIDDEN if item and isinstance(item, str) and _is_secret(str(name)) else masked(item)
            for name, item in items
        }
    if isinstance(value, list | tuple):
        return [masked(item) for item in cast("list[Any]", value)]
    if isinstance(value, str):
        return _masked_address(value) if "://" in value else value
    return str(value) if isinstance(value, Path | UUID) else value


def _masked_address(address: str) -> str:
    """Return an address without the password and the secret parameters in it; rather too much is hidden than not all.

    A password may hold what has a meaning in addresses, so it reaches from the first colon to the last @.
    """
    scheme, _, rest = address.partition("://")
    login, at, rest = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    place, mark, query = rest.partition("?")
    parameters = [_masked_parameter(one) for one in query.split("&")]
    return f"{scheme}://{user}{f'{colon}{HIDDEN}' if colon else ''}{at}{place}{mark}{'&'.join(parameters)}"


def _masked_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    return f"{name}{equals}{HIDDEN}" if value and _is_secret(name) else parameter


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def _shown(name: str, settings: Settings) -> Shown:
    value = getattr(settings, name)
    origin = settings.found.origins.get(name)
    derived = origin is None and name in settings.model_fields_set
    return Shown(name, names().of[name][0], masked(value), origin, derived)


def _raw(name: str, found: Found) -> Shown:
    field = Settings.model_fields[name]
    value = found.values.get(name, field.default)
    # What is no plain value may have keys in it, and cannot be looked into before it is understood.
    hidden = bool(value) and ("SecretStr" in str(field.annotation) or name == "model_routes")
    return Shown(name, names().of[name][0], HIDDEN if hidden else masked(value), found.origins.get(name))
