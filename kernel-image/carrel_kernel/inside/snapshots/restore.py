"""Restoring a snapshot, with an honest list of what could not be; whose it may be, the host has decided before."""

from __future__ import annotations

import importlib
import io
import pickle
import pickletools
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from carrel_kernel.inside.deadline import TooLong, limit
from carrel_kernel.inside.snapshots import codecs, settings
from carrel_kernel.inside.snapshots.pickling import NAMESPACE
from carrel_kernel.inside.snapshots.reasons import reason_of

_MAX_NAMES: Final = 100
_SHARE: Final = 4
"""One variable takes at most this part of the time that is left."""
_SETTINGS: Final = "(settings)"
_Memo: TypeAlias = Sequence[Any]


class _Unreadable(Exception):
    """A value cannot be restored; the text says why."""


class _Missing:
    """Stands for what could not be read, so that others that refer to it are found out."""


class _Outside:
    """What the pickle refers to; each object is read once."""

    def __init__(self, folder: Path, variables: dict[str, Any]) -> None:
        self._folder = folder
        self._described: list[dict[str, Any]] = variables["objects"]
        self._buffers: list[dict[str, Any]] = variables["buffers"]
        self._objects: dict[int, Any] = {}

    def object(self, number: int) -> Any:
        """Return the object of a number."""
        if number not in self._objects:
            described = self._described[number]
            self._objects[number] = codecs.CODECS[described["codec"]].read(self._folder / described["sha256"])
        return self._objects[number]

    def buffers(self, first: int) -> Iterator[bytearray]:
        """Yield the buffers from a number on; arrays can be written to, as they were."""
        for described in self._buffers[first:]:
            yield bytearray((self._folder / described["sha256"]).read_bytes())


class Unpickler(pickle.Unpickler):
    """Reads what `pickling.Pickler` wrote, variable by variable, from a place between two of them.

    `memo` is what the variables before have numbered. An unpickler's own cannot be set, so it is built by a pickle made
    for it.
    """

    def __init__(
        self, data: memoryview, namespace: dict[str, Any], outside: _Outside, *, first_buffer: int = 0, memo: _Memo = ()
    ) -> None:
        head = b"".join(b"J" + number.to_bytes(4, "little") + b"Q\x940" for number in range(len(memo)))
        super().__init__(io.BytesIO(b"\x80\x05" + head + b"N." + data), buffers=outside.buffers(first_buffer))
        self._namespace = namespace
        self._outside = outside
        self._memo = memo
        self.load()

    def persistent_load(self, pid: Any) -> Any:
        """Return the object that stands outside of the pickle."""
        if isinstance(pid, int):
            return self._memo[pid]
        return self._namespace if pid == (NAMESPACE,) else self._outside.object(pid[1])


class _Counter:
    """Counts instructions of a pickle from its beginning on; asked for places that grow."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self._found: Counter[str] = Counter()

    def up_to(self, end: int) -> Counter[str]:
        """Return how often each instruction comes before a place."""
        file = io.BytesIO(self._data[self._at : end])
        while file.tell() < end - self._at:
            self._found.update(opcode.name for opcode, _, _ in pickletools.genops(file))
        self._at = end
        return self._found.copy()


class _Values:
    """The values of a snapshot in their order, each read once; one that fails costs itself and what shares its data."""

    def __init__(self, folder: Path, variables: dict[str, Any], namespace: dict[str, Any]) -> None:
        self._data = memoryview((folder / variables["pickle"]["sha256"]).read_bytes())
        self._outside = _Outside(folder, variables)
        self._namespace = namespace
        self._unpickler = Unpickler(self._data, namespace, self._outside)
        self._counter = _Counter(self._data)
        self._missing = _Missing()
        self._lost: list[str] = []
        self._at = 0

    def next(self, name: str, size: int, seconds: float) -> Any:
        """Return the next value, whose part of the pickle has so many bytes.

        Raises
        ------
        _Unreadable
        """
        start, end = self._at, self._at + size
        self._at = end
        known = sys.getrefcount(self._missing)
        try:
            with limit(seconds):
                value = self._unpickler.load()
        except (Exception, TooLong) as error:
            self._lost.append(name)
            self._go_on(start, end)
            raise _Unreadable(reason_of(error)) from error
        if sys.getrefcount(self._missing) > known:
            raise _Unreadable(f"it shares data with {', '.join(self._lost)[:_MAX_NAMES]}, which could not be restored")
        return value

    def _go_on(self, start: int, end: int) -> None:
        """Begin anew behind a value that failed, with what the values before it have numbered."""
        memo = self._unpickler.memo.copy()
        before, after = self._counter.up_to(start), self._counter.up_to(end)
        self._unpickler = Unpickler(
            self._data[end:],
            self._namespace,
            self._outside,
            first_buffer=after["NEXT_BUFFER"],
            memo=[memo[at] if at < before["MEMOIZE"] else self._missing for at in range(after["MEMOIZE"])],
        )


class Restoration:
    """One snapshot, while it is restored into a shell."""

    def __init__(self, shell: Any, folder: Path, variables: dict[str, Any], workspace: Path, *, seconds: float) -> None:
        self._namespace: dict[str, Any] = shell.user_ns
        self._folder = folder
        self._variables = variables
        self._workspace = workspace
        self._until = time.monotonic() + seconds
        self._restored: list[str] = []
        self._failed: list[dict[str, str]] = []

    def restore(self) -> dict[str, Any]:
        """Define what the snapshot has; return the names that are back and those that are not, with the reasons."""
        theirs, ours = (
            version.rpartition(".")[0] for version in (self._variables["python"], platform.python_version())
        )
        if theirs == ours:
            self._define()
        else:
            for item in (*self._variables["imports"], *self._variables["variables"]):
                self._fail(item["name"], f"it was saved by Python {theirs}, and this kernel is Python {ours}")
        return {"restored": self._restored, "not_restored": self._failed}

    def _define(self) -> None:
        builtins = self._namespace.get("__builtins__")
        values = _Values(self._folder, self._variables, self._namespace)
        found: dict[str, Any] = {}
        try:
            found = values.next(_SETTINGS, self._variables["settings_bytes"], self._share())
        except _Unreadable as error:
            self._fail(_SETTINGS, str(error))
        settings.apply_place(found, self._workspace)
        for item in self._variables["imports"]:
            self._import(item["name"], item["module"])
        for item in self._variables["variables"]:
            try:
                value = values.next(item["name"], item["bytes"], self._share())
            except _Unreadable as error:
                self._fail(item["name"], str(error))
            else:
                self._set(item["name"], value)
        settings.apply_rest(found)
        self._namespace["__builtins__"] = builtins  # functions have put their own there

    def _import(self, name: str, module: str) -> None:
        try:
            with limit(self._share()):
                imported = importlib.import_module(module)
        except (Exception, TooLong) as error:  # noqa: BLE001  a module's code raises anything
            self._fail(name, reason_of(error))
        else:
            self._set(name, imported)

    def _set(self, name: str, value: Any) -> None:
        self._namespace[name] = value
        self._restored.append(name)

    def _share(self) -> float:
        """Return the seconds that one variable may take."""
        return (self._until - time.monotonic()) / _SHARE

    def _fail(self, name: str, reason: str) -> None:
        self._failed.append({"name": name, "reason": reason})
