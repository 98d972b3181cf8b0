"""Headers of downloads.

Plan: forty content types, of which four pictures are inline and everything else is an attachment, all sandboxed and
without sniffing; names with every control character stay one header; malformed types become the one that means nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.web.downloads import SANDBOX, content_disposition, headers, media_type

INLINE = ["image/png", "image/jpeg", "image/gif", "image/webp"]
ATTACHED = [
    "text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xhtml+xml", "image/svg+xml", "image/svg+xml;a=b",
    "text/xml", "application/xml", "application/xslt+xml", "text/javascript", "application/javascript", "text/css",
    "text/plain", "text/csv", "text/markdown", "application/pdf", "application/json", "application/octet-stream",
    "application/zip", "application/x-shockwave-flash", "application/java-archive", "application/wasm",
    "application/x-ipynb+json", "application/vnd.ms-excel", "application/x-parquet", "application/x-pickle",
    "image/bmp", "image/tiff", "image/x-icon", "image/avif", "audio/mpeg", "video/mp4", "font/woff2",
    "multipart/x-mixed-replace", "message/rfc822", "application/x-sh",
]  # fmt: skip


@pytest.mark.parametrize("kind", INLINE)
def test_pictures_are_shown(kind):
    made = headers("plot.png", kind, size=1)
    assert made["Content-Disposition"].startswith("inline;")
    assert made["Content-Security-Policy"] == SANDBOX
    assert made["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", ATTACHED)
def test_everything_else_is_attached(kind):
    made = headers("report", kind, size=1)
    assert made["Content-Disposition"].startswith("attachment;")
    assert made["Content-Security-Policy"] == SANDBOX
    assert made["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", ["", "html", "a/b/c", "text/html\r\nX: y", "te xt/html", "/", "text/", "ü/x"])
def test_malformed_types_mean_nothing(kind):
    assert media_type(kind) == "application/octet-stream"


@given(name=st.text(max_size=40))
def test_a_name_never_leaves_its_header(name):
    made = content_disposition(name, inline=False)
    assert made.isascii()
    assert made.isprintable()
    assert made.count('"') == 2


def test_both_forms_of_a_name():
    made = content_disposition("plots/Größe 1.png", inline=True)
    assert made == "inline; filename=\"Gr__e 1.png\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.png"
