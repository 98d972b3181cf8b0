"""Which names files may have, and of which type they are: pure.

A name is shown to people and is a path within a session's workspace; it is never a path or a key of the server, which
makes its own. What could be taken for another name, or for a way out of the workspace, is refused.
"""

from __future__ import annotations

import mimetypes
import re
import unicodedata
from typing import Final
from urllib.parse import unquote

from carrel_gateway.errors import InvalidInput
from carrel_wire.log import FileCategory

MAX_COMPONENT_BYTES: Final = 255
MAX_NAME_BYTES: Final = 1024
DEFAULT_TYPE: Final = "application/octet-stream"
_DECODINGS: Final = 3
"""Deeper escapes than a proxy, a framework and a careless program would undo together."""
_BAD_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, formatting (also those that turn the direction of text), surrogates, not assigned, line separators."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Formatting that several scripts and emoji are written with."""
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_TYPES: Final = {
    ".ipynb": "application/x-ipynb+json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".feather": "application/vnd.apache.arrow.file",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


def checked_name(name: str, category: FileCategory) -> str:
    """Return the name as it is stored: in Unicode's form NFC.

    Parameters
    ----------
    name
        With `/` between its parts; only artifacts and notebooks may have several.

    Raises
    ------
    InvalidInput
        It cannot be used; the message says why.
    """
    name = unicodedata.normalize("NFC", name)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise _invalid(f"is longer than {MAX_NAME_BYTES} bytes")
    parts = name.split("/")
    if category == "data" and len(parts) > 1:
        raise _invalid("must not hold `/`")
    for part in parts:
        _check_part(part)
    return name


def content_type_of(name: str, given: str | None) -> str:
    """Return the media type to store: the one given when it is one, else the one that the name suggests."""
    media_type = (given or "").partition(";")[0].strip().lower()
    if _MEDIA_TYPE.fullmatch(media_type) and media_type != DEFAULT_TYPE:
        return media_type
    extension = re.search(r"\.[A-Za-z0-9]+$", name)
    if extension and extension[0].lower() in _TYPES:
        return _TYPES[extension[0].lower()]
    return mimetypes.guess_type(f"file{extension[0] if extension else ''}")[0] or DEFAULT_TYPE


def _check_part(part: str) -> None:
    if not part.strip():
        raise _invalid("is empty, is absolute, or has an empty part")
    if len(part.encode("utf-8", "surrogatepass")) > MAX_COMPONENT_BYTES:
        raise _invalid(f"has a part longer than {MAX_COMPONENT_BYTES} bytes")
    if any(unicodedata.category(char) in _BAD_CATEGORIES and char not in _JOINERS for char in part):
        raise _invalid("holds a character that cannot be shown")
    for reading in _readings(part):
        if reading.strip() in {".", ".."} or "/" in reading or "\\" in reading or "\0" in reading:
            raise _invalid("can be read as a path out of the folder")


def _readings(part: str) -> list[str]:
    """Return what careless programs may make of a part: undone escapes, letters that look alike."""
    readings = [part]
    for _ in range(_DECODINGS):
        readings.append(unquote(readings[-1]))
    return [*readings, *(unicodedata.normalize("NFKC", reading) for reading in readings)]


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(f"the file name {reason}; choose another one", code="invalid_name")
