"""What a value is, read without running any code of the user's.

Looking at variables must not compute, print, change or hang anything. So nothing of an object is called that a class
written in Python could define: its type comes from `type()`, attributes from descriptors that compiled types bring
along, texts from scalars of Python and of its data libraries. Of any other object one sees its class and what it holds.

A user may still replace a library's own methods; for that there is `deadline`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import types
import zoneinfo
from collections.abc import Callable
from typing import Any, Final, cast

MAX_TEXT: Final = 200
_MAX_LEAF: Final = 40
_MAX_ATTRIBUTES: Final = 10
_MAX_BITS: Final = 4096
"""Longer integers take long to write, and nobody reads them."""
_MAX_ITEMS: Final = 20
_MAX_DEPTH: Final = 4
_INT64_BITS: Final = 63
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: what a class statement makes always has it
_COMPUTED_IN_C: Final = (types.GetSetDescriptorType, types.MemberDescriptorType)
_TEXTS: Final = (str, bytes, bytearray)
_SCALARS: Final = (bool, float, complex, type(None), decimal.Decimal, dt.date, dt.timedelta)
_TIMES: Final = (dt.datetime, dt.time)
_ZONES: Final = (type(None), dt.timezone, zoneinfo.ZoneInfo)
_SCALARS_IN_PYTHON: Final = (
    ("pandas._libs.tslibs.timestamps", "Timestamp"),
    ("pandas._libs.tslibs.timedeltas", "Timedelta"),
    ("pandas._libs.tslibs.nattype", "NaTType"),
    ("pandas._libs.missing", "NAType"),
    ("pathlib", "PosixPath"),
    ("uuid", "UUID"),
)

_kind_of = cast("Callable[[Any], type[Any]]", type)
_name_of = type.__dict__["__name__"].__get__
_bases_of = type.__dict__["__mro__"].__get__
_members_of = type.__dict__["__dict__"].__get__
_flags_of = type.__dict__["__flags__"].__get__


def type_name(value: Any) -> str:
    """Return the name of the value's class."""
    return cast("str", _name_of(_kind_of(value)))[:MAX_TEXT]


def is_a(value: Any, *kinds: type) -> bool:
    """Whether the value is an instance: by its type, and not by what it claims in `__class__`."""
    return issubclass(_kind_of(value), kinds)


def _is_one_of(kind: type, kinds: tuple[type, ...]) -> bool:
    """Whether it is one of the classes; `in` would ask its metaclass."""
    return any(kind is other for other in kinds)


def is_of(value: Any, module: str, name: str) -> bool:
    """Whether the value is an instance of exactly the class that a module, once imported, has by that name."""
    found = sys.modules.get(module)
    return _kind_of(found) is types.ModuleType and vars(found).get(name) is _kind_of(value)


def summary(value: Any, limit: int = MAX_TEXT) -> str:
    """Return a short text for a value."""
    return (_scalar_text(value, limit) or _composed_text(value))[:limit]


def attribute(value: Any, name: str) -> Any:
    """Return an attribute that the instance holds or that its compiled type computes; none else."""
    found = _static(_kind_of(value), name)
    if _is_one_of(_kind_of(found), _COMPUTED_IN_C):
        return found.__get__(value)
    return _held(value).get(name) if found is None else None


def shape(value: Any) -> list[int] | None:
    """Return the shape of an array, or of whatever else has one."""
    found = attribute(value, "shape")
    if _kind_of(found) is not tuple:
        return None
    sizes = cast("tuple[Any, ...]", found)
    return list(sizes) if all(_kind_of(size) is int for size in sizes) else None


def element_type(value: Any) -> str | None:
    """Return the type of an array's elements."""
    found = _static(_kind_of(value), "dtype")
    return str(found.__get__(value))[:MAX_TEXT] if _kind_of(found) is types.GetSetDescriptorType else None


def size_bytes(value: Any) -> int | None:
    """Return the memory of the value itself: an array's data, but of a container not what is in it."""
    nbytes = attribute(value, "nbytes")
    if _kind_of(nbytes) is int:
        return nbytes
    sizeof = _static(_kind_of(value), "__sizeof__")
    return sizeof(value) if _kind_of(sizeof) is types.MethodDescriptorType else None


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON has it: scalars and containers as they are, bounded; a short text for all else."""
    kind = _kind_of(value)
    if _is_one_of(kind, (bool, str, type(None))) or (kind is int and value.bit_length() <= _INT64_BITS):
        return value
    if kind is float:
        return value if value - value == 0 else None  # neither infinite nor NaN
    if kind is dt.date or _is_time(value):
        return value.isoformat()
    if depth < _MAX_DEPTH and (kind is list or kind is tuple):
        return [plain(item, depth + 1) for item in value[:_MAX_ITEMS]]
    if depth < _MAX_DEPTH and kind is dict:
        items = list(cast("dict[Any, Any]", value).items())[:_MAX_ITEMS]
        return {label(key): plain(item, depth + 1) for key, item in items}
    return summary(value)


def label(value: Any) -> str:
    """Return a text that stands for the value as the name of something."""
    return value if _kind_of(value) is str else summary(value)


def _is_time(value: Any) -> bool:
    """Whether it is a time whose zone is Python's own; any other zone's methods would be called for its text."""
    return _is_one_of(_kind_of(value), _TIMES) and _is_one_of(_kind_of(value.tzinfo), _ZONES)


def _scalar_text(value: Any, limit: int) -> str | None:
    kind = _kind_of(value)
    if kind is int and value.bit_length() > _MAX_BITS:
        return f"int of {value.bit_length()} bits"
    if _is_one_of(kind, _TEXTS):
        return repr(value[:limit])
    if kind is int or _is_one_of(kind, _SCALARS) or _is_time(value) or _is_scalar_of_numpy(kind):
        return repr(value)
    return repr(value) if any(is_of(value, *names) for names in _SCALARS_IN_PYTHON) else None


def _is_scalar_of_numpy(kind: type) -> bool:
    """Whether it is a compiled type of numbers, times or texts; numpy's records and objects hold other values."""
    if _flags_of(kind) & _HEAP_TYPE:
        return False
    bases = {_name_of(base) for base in _bases_of(kind)}
    return "generic" in bases and not bases & {"void", "object_"}


def _composed_text(value: Any) -> str:
    kind = type_name(value)
    if (sizes := shape(value)) is not None:
        return f"{kind} of shape {tuple(sizes)}"
    length = _static(_kind_of(value), "__len__")
    if _kind_of(length) is types.WrapperDescriptorType:
        return f"{kind} of {length(value)} items"
    held = [(key, item) for key, item in _held(value).items() if _kind_of(key) is str and not key.startswith("_")]
    texts = [f"{key}={_scalar_text(item, _MAX_LEAF) or type_name(item)}" for key, item in held[:_MAX_ATTRIBUTES]]
    return f"{kind}({', '.join(texts)}{', …' if len(held) > _MAX_ATTRIBUTES else ''})" if texts else kind


def _static(kind: type, name: str) -> Any:
    """Return what the class or one above it defines, without asking a descriptor or a metaclass."""
    for base in _bases_of(kind):
        members = _members_of(base)
        if name in members:
            return members[name]
    return None


def _held(value: Any) -> dict[Any, Any]:
    """Return a copy of what is in the instance itself."""
    own = _static(_kind_of(value), "__dict__")
    held = own.__get__(value) if _kind_of(own) is types.GetSetDescriptorType else None
    return dict(cast("dict[Any, Any]", held)) if _kind_of(held) is dict else {}
