"""Reads the places that settings come from into layers, what goes first first; decides nothing between them.

A folder of secrets (`CARREL_SECRETS_DIR`) > the environment > `./.env` > `~/.carrel/.env` > a configuration file in
YAML or TOML > the defaults. The configuration file is the one that `CARREL_CONFIG_FILE` names, or
`~/.carrel/config.yaml`, or `~/.carrel/config.toml`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from carrel_gateway.errors import CarrelError
from carrel_gateway.sources.names import PREFIXES, names_of

ENV_FILES: Final = ("./.env", "~/.carrel/.env")
CONFIG_FILES: Final = ("~/.carrel/config.yaml", "~/.carrel/config.toml")
_SECRETS_DIR: Final = names_of("secrets_dir")
_CONFIG_FILE: Final = names_of("config_file")


class InvalidSettings(CarrelError, ValueError):
    """The settings cannot be used; the message has a line for each reason, and no value."""

    code = "invalid_settings"


class Kind(StrEnum):
    SECRETS = "secrets"
    ENVIRONMENT = "environment"
    ENV_FILE = "env file"
    CONFIG_FILE = "configuration file"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says: values by the names of variables, in upper case."""

    kind: Kind
    place: str
    """The file or the folder; empty for the environment."""
    values: Mapping[str, Any]

    def called(self, name: str) -> str:
        """Return how the place itself calls a variable."""
        return name.removeprefix(PREFIXES[0]).lower() if self.kind is Kind.CONFIG_FILE else name


def read_layers(env_files: Sequence[str | Path] | None, environment: Mapping[str, str] = os.environ) -> list[Layer]:
    """Return the layers, what goes first first.

    Parameters
    ----------
    env_files
        The `.env` files, what goes first first; without any, the configuration file is read only where it is named.

    Raises
    ------
    InvalidSettings
        A place that is named cannot be read, or is not of its form.
    """
    layers = [Layer(Kind.ENVIRONMENT, "", _upper(environment))]
    layers += [layer for name in env_files or () if (layer := _env_file(Path(name).expanduser()))]
    folder = _named(layers, _SECRETS_DIR)
    if folder:
        layers.insert(0, _secrets(Path(folder).expanduser()))
    named = _named(layers, _CONFIG_FILE)
    path = Path(named).expanduser() if named else _usual_config_file() if env_files else None
    return [*layers, config_layer(path)] if path else layers


def _upper(values: Mapping[str, Any]) -> dict[str, Any]:
    # As it is written goes before any other way to write the same name.
    return {name.upper(): value for name, value in sorted(values.items(), key=lambda item: item[0].isupper())}


def _named(layers: list[Layer], names: tuple[str, ...]) -> str | None:
    return next((str(value) for layer in layers for name in names if (value := layer.values.get(name))), None)


def _env_file(path: Path) -> Layer | None:
    try:
        if not path.is_file():
            return None
        values = dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read: {_reason(error)}") from error
    return Layer(Kind.ENV_FILE, str(path), _upper({name: value or "" for name, value in values.items()}))


def _secrets(folder: Path) -> Layer:
    if not folder.is_dir():  # nobody must start with a key that was meant to be another one
        raise InvalidSettings(f"CARREL_SECRETS_DIR is {folder}, which is no folder that can be read")
    found: dict[str, str | bytes] = {}
    for path in folder.iterdir():
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidSettings(f"{path}, of CARREL_SECRETS_DIR, cannot be read: {_reason(error)}") from error
        try:
            found[path.name] = content.decode().strip()
        except UnicodeDecodeError:  # a keystore of somebody else's; as the value of a setting it is refused
            found[path.name] = content
    return Layer(Kind.SECRETS, str(folder), _upper(found))


def _usual_config_file() -> Path | None:
    there = [path for name in CONFIG_FILES if (path := Path(name).expanduser()).is_file()]
    if len(there) > 1:
        raise InvalidSettings(f"there are {there[0]} and {there[1]}; keep one, or name one with CARREL_CONFIG_FILE")
    return there[0] if there else None


def config_layer(path: Path) -> Layer:
    """Return what a configuration file says; its form is told by the end of its name.

    Raises
    ------
    InvalidSettings
        It cannot be read, or is not of its form.
    """
    if path.suffix not in {".yaml", ".yml", ".toml"}:
        raise InvalidSettings(f"the configuration file {path} must end in .yaml, .yml or .toml")
    try:
        text = path.read_text("utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else _yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the configuration file {path} cannot be read: {_reason(error)}") from error
    except ValueError as error:  # of either form; both tell the line
        raise InvalidSettings(f"the configuration file {path} is not right: {error}") from None
    return Layer(Kind.CONFIG_FILE, str(path), _settings_of(path, found))


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415  only where there is such a file

    class Loader(yaml.SafeLoader):
        """Takes no name twice, as TOML does."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is there twice (line {node.start_mark.line + 1} and on)")
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:  # without the text around it, which may hold a secret
        mark = error.problem_mark
        raise ValueError(f"{error.problem}{f' (line {mark.line + 1})' if mark else ''}") from None
    except yaml.YAMLError:
        raise ValueError("it is no YAML") from None


def _settings_of(path: Path, found: Any) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict) or any(not isinstance(name, str) for name in found):  # pyright: ignore[reportUnknownVariableType]
        raise InvalidSettings(f"the configuration file {path} must hold names of settings with their values")
    return {f"{PREFIXES[0]}{name.upper()}": value for name, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
