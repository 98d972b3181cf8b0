"""Chooses the value of each setting from the layers; pure. Says what was passed over, and what nobody knows.

Between layers the first goes first, within one layer the order of a setting's names. Messages hold names and places,
never a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from carrel_gateway.sources.names import PREFIXES, SCALED, is_foreign, missing_part, nearest
from carrel_gateway.sources.reading import Kind, Layer

_NOT_IN_A_FILE: Final = frozenset({"secrets_dir", "config_file"})
"""They say where to look, before there is a file."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    kind: Kind
    place: str
    """The file or the folder; empty for the environment."""
    name: str
    """How it is called there."""

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name


@dataclass(slots=True)
class Found:
    """What the layers say of the settings."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[str, Origin] = field(default_factory=dict[str, Origin])
    warnings: list[str] = field(default_factory=list[str])
    """What may not be as it was meant."""
    problems: list[str] = field(default_factory=list[str])
    """For which nobody should start."""


@dataclass(frozen=True, slots=True)
class Names:
    """The variables of all settings."""

    of: Mapping[str, tuple[str, ...]]
    """Of each setting; what goes first is first."""
    optional: frozenset[str]
    """Settings that may be none; an empty value of these is none."""


def choose(names: Names, layers: Sequence[Layer]) -> Found:
    """Return the values in force."""
    found = Found()
    for setting, variables in names.of.items():
        given = list(_given(setting, variables, layers, optional=setting in names.optional))
        if not given:
            continue
        winner, value = given[0]
        found.values[setting], found.origins[setting] = value, winner
        for loser, other in given[1:]:
            if loser.name != winner.name and loser.kind is not Kind.CONFIG_FILE and str(other) != str(value):
                found.warnings.append(f"{winner} and {loser} differ; {winner} is used, {loser} is not")
    _look_for_strangers(names, layers, found)
    return found


def _given(
    setting: str, variables: tuple[str, ...], layers: Sequence[Layer], *, optional: bool
) -> Iterator[tuple[Origin, Any]]:
    for layer in layers:
        there = [name for name in variables if name in layer.values and not is_foreign(name, layer.values[name])]
        # An empty name says nothing beside one with a value, as in files that list all names there are.
        there.sort(key=lambda name: layer.values[name] in ("", None))
        for name in there:
            value = layer.values[name]
            if optional and value == "":
                value = None
            if name in SCALED:
                value = _scaled(value, SCALED[name])
            if layer.kind is not Kind.CONFIG_FILE or setting not in _NOT_IN_A_FILE:
                yield Origin(layer.kind, layer.place, layer.called(name)), value


def _scaled(value: Any, by: int) -> Any:
    try:
        return int(float(value) * by)
    except (TypeError, ValueError, OverflowError):
        return value  # no number; it is refused as every such value


def _look_for_strangers(names: Names, layers: Sequence[Layer], found: Found) -> None:
    known = {variable for variables in names.of.values() for variable in variables}
    for layer in layers:
        for name, value in layer.values.items():
            from_file = layer.kind is Kind.CONFIG_FILE
            where = Origin(layer.kind, layer.place, layer.called(name))
            if from_file and name.removeprefix(PREFIXES[0]).lower() in _NOT_IN_A_FILE:
                found.problems.append(f"{where} says where to look, and cannot be in the file itself: set {name}")
            elif name in known or (not from_file and is_foreign(name, value)):
                continue
            elif part := missing_part(name):
                found.warnings.append(f"{where} has no effect: this version has {part}")
            elif name.startswith(PREFIXES):
                found.problems.append(f"{where} is no setting{_meant(name, known, layer)}")


def _meant(name: str, known: set[str], layer: Layer) -> str:
    likely = nearest(name, known)
    return f"; did you mean {layer.called(likely)}?" if likely else "; the reference has them all"
