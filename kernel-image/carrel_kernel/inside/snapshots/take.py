"""Taking a snapshot: every variable that can be saved, and a list of those that cannot, with the reasons.

One pickle holds them all, so that what two variables share stays shared. Each is tried alone first: one that fails, or
takes too long, costs itself only.
"""

from __future__ import annotations

import platform
import re
import sys
import time
import types
from pathlib import Path
from typing import Any, Final

from carrel_kernel.inside.deadline import TooLong, limit
from carrel_kernel.inside.snapshots import settings
from carrel_kernel.inside.snapshots.blobs import Blobs
from carrel_kernel.inside.snapshots.pickling import Nowhere, Outside, Pickler
from carrel_kernel.inside.snapshots.reasons import NO_TIME, reason_of, type_name

_SHARE: Final = 4
"""One variable's trial takes at most this part of the time that is left for trials, which is half of all."""
_MAX_NAME: Final = 200
_OF_IPYTHON: Final = re.compile(r"_+|_\d+|_i+|_i\d+|_[iod]h|In|Out|exit|quit|get_ipython|open|__\w+__")
_WHAT: Final[tuple[tuple[type, str], ...]] = (
    (types.GeneratorType, "a generator cannot be saved"),
    (types.CoroutineType, "a coroutine cannot be saved"),
    (types.AsyncGeneratorType, "a generator cannot be saved"),
    (types.FrameType, "a frame of a running function cannot be saved"),
)


class _Unsaved(Exception):
    """A variable failed after its trial."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name)
        self.name = name
        self.reason = reason


def user_variables(shell: Any) -> dict[str, Any]:
    """Return what the session has defined, without what IPython keeps there."""
    namespace: dict[Any, Any] = shell.user_ns
    hidden: dict[str, Any] = shell.user_ns_hidden
    return {
        name: value
        for name, value in list(namespace.items())
        if type(name) is str  # `globals()` takes anything
        and not _OF_IPYTHON.fullmatch(name)
        and (name not in hidden or hidden[name] is not value)
    }


class Snapshot:
    """One snapshot, while it is taken."""

    def __init__(self, shell: Any, folder: Path, workspace: Path, *, seconds: float, max_bytes: int) -> None:
        self._namespace: dict[str, Any] = shell.user_ns
        self._variables = user_variables(shell)
        self._workspace = workspace
        self._blobs = Blobs(folder, max_bytes)
        self._until = time.monotonic() + seconds
        self._trials_until = self._until - seconds / 2
        self._imports: list[dict[str, str]] = []
        self._not_saved: list[dict[str, str]] = []
        self._saved: dict[str, Any] = {}

    def take(self) -> dict[str, Any]:
        """Return what was saved; the blobs lie in the folder."""
        began = time.monotonic()
        for name, value in self._variables.items():
            self._look_at(name, value)
        written = self._write()
        return {
            "python": platform.python_version(),
            "imports": self._imports,
            "not_saved": self._not_saved,
            "seconds": round(time.monotonic() - began, 3),
            **written,
        }

    def _look_at(self, name: str, value: Any) -> None:
        """Sort a variable into what is imported, saved, and not saved."""
        if not _is_name(name):
            self._leave(repr(name)[:_MAX_NAME], value, f"its name is no text of at most {_MAX_NAME} characters")
            return
        for kind, reason in _WHAT:
            if issubclass(type(value), kind):  # not `isinstance`: that asks the object
                self._leave(name, value, reason)
                return
        try:
            with limit((self._trials_until - time.monotonic()) / _SHARE):
                if issubclass(type(value), types.ModuleType):
                    self._imports.append({"name": name, "module": _importable(value)})
                    return
                Pickler(Nowhere(), self._namespace, None).dump(value)
        except (Exception, TooLong) as error:  # noqa: BLE001  objects of the session's raise anything
            self._leave(name, value, reason_of(error))
        else:
            self._saved[name] = value

    def _leave(self, name: str, value: Any, reason: str) -> None:
        self._not_saved.append({"name": name, "type": type_name(value), "reason": reason})

    def _settings(self) -> dict[str, Any]:
        """Return the settings that can be saved."""
        found: dict[str, Any] = {}
        for name, read in settings.READ.items():
            try:
                with limit((self._trials_until - time.monotonic()) / _SHARE):
                    value = read(self._workspace)
                    Pickler(Nowhere(), self._namespace, None).dump(value)
            except (Exception, TooLong):  # noqa: BLE001  libraries may have been changed by the session
                value = None
            if value is not None:
                found[name] = value
        return found

    def _write(self) -> dict[str, Any]:
        """Write what passed its trial; what fails now after all is left out, and the rest written anew."""
        found = self._settings()
        while True:
            try:
                return self._written(found)
            except _Unsaved as failed:
                self._leave(failed.name, self._saved.pop(failed.name), failed.reason)

    def _written(self, found: dict[str, Any]) -> dict[str, Any]:
        outside = Outside(self._blobs)
        items: list[dict[str, Any]] = []
        with self._blobs.writer() as writer:
            pickler = Pickler(writer, self._namespace, outside)
            pickler.dump(found)
            settings_bytes = writer.size
            for name, value in list(self._saved.items()):
                mark, buffers = writer.mark(), len(outside.buffers)
                try:
                    with limit(self._until - time.monotonic()):
                        pickler.dump(value)
                except TooLong:  # what is written already stays; nothing after it can be
                    writer.rollback(mark)
                    del outside.buffers[buffers:]
                    for late in list(self._saved)[len(items) :]:
                        self._leave(late, self._saved.pop(late), NO_TIME)
                    break
                except Exception as error:
                    raise _Unsaved(name, reason_of(error)) from error
                items.append({"name": name, "type": type_name(value), "bytes": writer.size - mark[0]})
        return {
            "settings_bytes": settings_bytes,
            "variables": items,
            "pickle": {"sha256": writer.digest, "size": writer.size},
            "objects": outside.objects,
            "buffers": outside.buffers,
        }


def _is_name(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= _MAX_NAME


def _importable(module: types.ModuleType) -> str:
    """Return the name by which a module is imported.

    Raises
    ------
    ImportError
        There is none.
    """
    name = module.__name__
    if type(name) is not str or not _is_name(name) or sys.modules.get(name) is not module:
        raise ImportError("a module that cannot be imported by its name")
    return name
