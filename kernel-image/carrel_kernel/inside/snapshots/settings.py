"""State of a process beside its variables: working directory, import path, random numbers, matplotlib, sources.

Folders inside the workspace are kept as such: where the state is restored it may have another path.
"""

from __future__ import annotations

import linecache
import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final


def _sources() -> dict[str, list[str]]:
    """Return the lines of the cells, by the names under which `inspect` and tracebacks look for them."""
    return {
        name: list(entry[2])
        for name, entry in list(linecache.cache.items())
        if len(entry) == 4 and entry[1] is None  # no time of change: it was no file
    }


def _numpy_random() -> Any:
    return sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None


def _matplotlib() -> dict[str, Any] | None:
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is None:
        return None
    defaults = matplotlib.rcParamsDefault
    return {
        name: value for name, value in matplotlib.rcParams.items() if name != "backend" and value != defaults.get(name)
    }


def _portable(folder: str, workspace: Path) -> tuple[str, bool]:
    """Return a folder, relative to the workspace when it is in there, and whether it is."""
    inside = Path(folder).is_relative_to(workspace)
    return (str(Path(folder).relative_to(workspace)), True) if inside else (folder, False)


def _here(portable: tuple[str, bool], workspace: Path) -> str:
    folder, inside = portable
    return str(workspace / folder) if inside else folder


READ: Final[dict[str, Callable[[Path], Any]]] = {
    "directory": lambda workspace: _portable(str(Path.cwd()), workspace),
    "path": lambda workspace: [_portable(entry, workspace) for entry in sys.path],
    "sources": lambda _: _sources(),
    "random": lambda _: random.getstate(),
    "numpy.random": lambda _: _numpy_random(),
    "matplotlib": lambda _: _matplotlib(),
}
"""How each part is read, by the workspace; what is not in use, or raises, is not saved."""


def apply_place(found: dict[str, Any], workspace: Path) -> None:
    """Take on what importing needs: folder and path. And the sources, which have no order."""
    with suppress(OSError, KeyError):  # a folder that is not in the workspace may not be here
        os.chdir(_here(found["directory"], workspace))
    path = [_here(entry, workspace) for entry in found.get("path", ())]
    sys.path.extend(entry for entry in path if entry not in sys.path)
    for name, lines in found.get("sources", {}).items():
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


def apply_rest(found: dict[str, Any]) -> None:
    """Take on the rest, which must come last: reading variables may draw random numbers."""
    if "random" in found:
        random.setstate(found["random"])
    if "numpy.random" in found:
        import numpy as np  # noqa: PLC0415  it was in use

        np.random.set_state(found["numpy.random"])  # noqa: NPY002  the state of old code
    if "matplotlib" in found:
        import matplotlib as mpl  # noqa: PLC0415  as above

        for name, value in found["matplotlib"].items():
            with suppress(KeyError, ValueError):  # another version of it
                mpl.rcParams[name] = value
