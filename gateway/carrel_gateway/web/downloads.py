"""Headers of downloads: what users or their code made must never run as a page of the gateway's origin.

Everything is an attachment under `CSP: sandbox`, but pictures of the types that cannot hold a script (SVG can).
Source of the file name's form: RFC 6266, RFC 8187.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

INLINE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 ._()-]")
SANDBOX: Final = "sandbox; default-src 'none'; frame-ancestors 'none'"


def media_type(content_type: str) -> str:
    """Return the type alone, or the one that means nothing when it is malformed."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind if _TYPE.fullmatch(kind) else "application/octet-stream"


def content_disposition(name: str, *, inline: bool) -> str:
    """Return the header for a file of this name; only its last component is told."""
    last = name.rsplit("/", 1)[-1]
    plain = _UNSAFE.sub("_", last)
    encoded = quote(last.encode("utf-8", "replace"), safe="")
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def tag_of(sha256: str) -> str:
    """Return the tag of a file of this content."""
    return f'"{sha256}"'


def headers(name: str, content_type: str, *, size: int | None, sha256: str | None = None) -> dict[str, str]:
    """Return all headers of one download."""
    kind = media_type(content_type)
    return {
        "Content-Type": kind,
        "Content-Disposition": content_disposition(name, inline=kind in INLINE_TYPES),
        "Content-Security-Policy": SANDBOX,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
        **({} if size is None else {"Content-Length": str(size)}),
        **({} if sha256 is None else {"ETag": tag_of(sha256)}),
    }
