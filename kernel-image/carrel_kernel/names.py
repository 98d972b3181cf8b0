"""Names of files in the workspace, as callers give them: relative, Unicode, and without ways to anywhere else. Pure."""

from __future__ import annotations

from typing import Final

from carrel_kernel.errors import PathRefused

PRIVATE: Final = ".carrel"
"""The host's own folder in the workspace: not listed, and only its overflow files may be read."""
OVERFLOW: Final = f"{PRIVATE}/overflow"
_MAX_NAME_BYTES: Final = 255
_MAX_PATH_BYTES: Final = 4000


def parts_of(name: str) -> tuple[str, ...]:
    r"""Return the components of a relative name with `/`.

    Raises
    ------
    PathRefused
        It is empty, absolute, too long, or has `.`, `..`, empty, `\` or control characters in it.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise PathRefused("a file name must be valid Unicode") from error
    parts = tuple(name.split("/"))
    if not name or len(encoded) > _MAX_PATH_BYTES:
        raise PathRefused("a file name must not be empty or longer than 4000 bytes")
    for part in parts:
        if part in ("", ".", ".."):
            raise PathRefused("a file name is relative to the workspace and has no empty, `.` or `..` component")
        if len(part.encode()) > _MAX_NAME_BYTES or "\\" in part or any(ord(character) < 32 for character in part):
            raise PathRefused("a component is at most 255 bytes, without `\\` and control characters")
    return parts


def is_unicode(name: str) -> bool:
    """Whether a name from the file system can be sent as JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
