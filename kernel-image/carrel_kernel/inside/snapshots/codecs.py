"""What is kept in an open format instead of a pickle: numpy arrays as npy, pandas DataFrames as Arrow IPC.

Only where nothing is lost: an array of Python objects, a subclass, or a frame that Arrow would change goes into the
pickle.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from carrel_kernel.inside.snapshots.blobs import Writer

OUTSIDE_BYTES: Final = 64 * 1024
"""What is smaller stays in the pickle: a file each would cost more than it saves."""


class Codec(NamedTuple):
    """How objects of one kind are written and read."""

    fits: Callable[[Any], bool]
    write: Callable[[Any, Writer], None]
    read: Callable[[Path], Any]


def kinds() -> dict[type, str]:
    """Return the types that have a codec, as far as their libraries are loaded: others have no objects."""
    names = (("numpy", "ndarray", "npy"), ("pandas", "DataFrame", "arrow"))
    found = {getattr(sys.modules.get(module), kind, None): codec for module, kind, codec in names}
    return {kind: codec for kind, codec in found.items() if isinstance(kind, type)}


# ---------------------------------------------------------------------- arrays


def _is_plain_array(value: Any) -> bool:
    kind = value.dtype
    return value.nbytes >= OUTSIDE_BYTES and not kind.hasobject and kind.isbuiltin == 1


def _write_array(value: Any, writer: Writer) -> None:
    formats = sys.modules["numpy"].lib.format
    if not value.flags.c_contiguous and not value.flags.f_contiguous:
        value = value.copy()
    formats.write_array_header_1_0(writer, formats.header_data_from_array_1_0(value))
    data = value if value.flags.c_contiguous else value.T
    writer.write(data.reshape(-1).view("u1"))


def _read_array(path: Path) -> Any:
    import numpy as np  # noqa: PLC0415  only snapshots with arrays need it

    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


# ---------------------------------------------------------------------- frames


def _is_plain_frame(value: Any) -> bool:
    if value.memory_usage(index=True, deep=False).sum() < OUTSIDE_BYTES or importlib.util.find_spec("pyarrow") is None:
        return False
    objects = any(kind == object for kind in (*value.dtypes, value.index.dtype))  # noqa: E721  of numpy, not of Python
    axes = (value.index, value.columns)
    if objects or value.attrs or any(axis.nlevels != 1 or getattr(axis, "freq", None) is not None for axis in axes):
        return False
    pa: Any = importlib.import_module("pyarrow")
    empty: Any = value.iloc[:0]
    try:
        back = pa.Table.from_pandas(empty).to_pandas()
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError):  # what Arrow has no type for
        return False
    return list(back.dtypes) == list(value.dtypes) and all(
        type(theirs) is type(ours) and theirs.dtype == ours.dtype and theirs.names == ours.names and theirs.equals(ours)
        for theirs, ours in ((back.columns, empty.columns), (back.index, empty.index))
    )


def _write_frame(value: Any, writer: Writer) -> None:
    pa: Any = importlib.import_module("pyarrow")

    table = pa.Table.from_pandas(value)
    with pa.ipc.new_file(pa.PythonFile(writer, mode="w"), table.schema) as file:
        file.write_table(table)


def _read_frame(path: Path) -> Any:
    pa: Any = importlib.import_module("pyarrow")

    with path.open("rb") as file:
        return pa.ipc.open_file(file).read_all().to_pandas()


CODECS: Final = {
    "npy": Codec(_is_plain_array, _write_array, _read_array),
    "arrow": Codec(_is_plain_frame, _write_frame, _read_frame),
}
