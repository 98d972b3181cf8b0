"""One pickle for all variables, beside files for what has an open format and for large buffers."""

from __future__ import annotations

import io
import pickle
import types
from typing import Any, Final, cast

import cloudpickle

from carrel_kernel.inside.snapshots import codecs
from carrel_kernel.inside.snapshots.blobs import Blobs, Writer

NAMESPACE: Final = "namespace"


class Nowhere:
    """Where a trial is written to."""

    def write(self, data: Any) -> int:
        """Take the data for written."""
        return len(data)


class Outside:
    """What a pickle refers to: objects in their own formats, and buffers."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._known: dict[int, tuple[Any, int]] = {}  # the object itself, too: its id stays its own
        self.objects: list[dict[str, Any]] = []
        self.buffers: list[dict[str, Any]] = []

    def object(self, value: Any, codec: str) -> int:
        """Return the number of an object, written when it is new."""
        if id(value) not in self._known:
            with self._blobs.writer() as writer:
                codecs.CODECS[codec].write(value, writer)
            self.objects.append({"codec": codec, "sha256": writer.digest, "size": writer.size})
            self._known[id(value)] = (value, len(self.objects) - 1)
        return self._known[id(value)][1]

    def buffer(self, raw: memoryview) -> None:
        """Write a buffer; they are read in the order of writing."""
        with self._blobs.writer() as writer:
            writer.write(raw)
        self.buffers.append({"sha256": writer.digest, "size": writer.size})


class Pickler(cloudpickle.Pickler):
    """Pickles code of the session by value, and leaves what has a format of its own, and large buffers, outside.

    A function's globals are the session's variables: they are not copied, and it finds those of the session that it is
    restored in. Without `outside` it is a trial: nothing is kept.
    """

    def __init__(self, file: Writer | Nowhere, namespace: dict[str, Any], outside: Outside | None) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._on_buffer)  # pyright: ignore[reportArgumentType]  it only writes
        self._namespace = namespace
        self._marker = {"__name__": "__main__"}
        self.globals_ref[id(namespace)] = self._marker
        self._outside = outside
        self._codecs = codecs.kinds()

    def _dynamic_function_reduce(self, func: types.FunctionType) -> tuple[Any, ...]:
        base: Any = super()
        reduced = base._dynamic_function_reduce(func)  # noqa: SLF001  meant to be overridden, and is above
        if func.__globals__ is self._namespace:
            reduced[2][1]["__globals__"] = {}
        return reduced

    def reducer_override(self, obj: Any) -> Any:
        """Refuse what cloudpickle would take for something else."""
        if type(obj) is memoryview:
            raise pickle.PicklingError("a view of memory cannot be saved")  # it would come back as bytes
        if issubclass(type(obj), io.IOBase) and type(obj) not in (io.BytesIO, io.StringIO):
            raise pickle.PicklingError("an open file cannot be saved")  # it would save a copy of what is in the file
        base: Any = super()
        return base.reducer_override(obj)

    def persistent_id(self, obj: Any) -> Any:
        """Return what stands for an object in the pickle; none for most, which are pickled."""
        if obj is self._marker:
            return (NAMESPACE,)
        codec = self._codecs.get(cast("Any", type(obj)))
        if codec is None or not codecs.CODECS[codec].fits(obj):
            return None
        return ("object", self._outside.object(obj, codec) if self._outside else 0)

    def _on_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < codecs.OUTSIDE_BYTES:
            return True
        if self._outside:
            self._outside.buffer(raw)
        return False
