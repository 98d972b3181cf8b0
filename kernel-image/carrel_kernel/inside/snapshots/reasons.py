"""Why something is not saved or not restored, in short texts: the errors are of the session's, and may lie or fail."""

from __future__ import annotations

from typing import Any, Final

from carrel_kernel.inside.deadline import TooLong

_MAX_TEXT: Final = 200
NO_TIME: Final = "there was no time left for it"


def reason_of(error: BaseException) -> str:
    """Return a short text of an error, whose own text may fail."""
    if isinstance(error, TooLong):
        return NO_TIME
    kind = type_name(error)
    try:
        return f"{kind}: {error}"[:_MAX_TEXT]
    except Exception:  # noqa: BLE001  the error is one of the session's
        return kind


def type_name(value: Any) -> str:
    """Return the name of an object's type, whatever its metaclass says of it."""
    return str(type.__dict__["__name__"].__get__(type(value)))[:_MAX_TEXT]
