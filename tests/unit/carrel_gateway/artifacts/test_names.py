"""File names: whatever is let in stays inside its folder, however carelessly it is read afterwards.

Plan: 50,000 names from hostile fragments (one seed) and Hypothesis' own; the oracle joins what was let in to a folder,
as POSIX and as Windows do, also after undoing escapes and look-alike letters. A table of names that must be let in or
refused. Media types.
"""

from __future__ import annotations

import ntpath
import posixpath
import random
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.artifacts.names import MAX_COMPONENT_BYTES, MAX_NAME_BYTES, checked_name, content_type_of
from carrel_gateway.errors import InvalidInput
from carrel_wire.log import FileCategory

FRAGMENTS = (
    *("..", ".", "/", "\\", "//", "\0", "%2e", "%2E%2e", "%2f", "%5c", "%252e", "%25252f", "%00", "\uff0e", "\uff0f"),
    *("\u2024", "\u2025", "\u2215", "\u29f5", "\ufe52", "a", "data", "etc/passwd", "C:", "\r\n", "\u202e", "\u200b"),
    *("file.csv", "~", " ", "\t", "-rf", "$(id)", "é", "e\u0301", "\U0001f4c8", "\udc80", "CON", "....", "..;"),
)
FOLDER = "/srv/tenant/session/data"


def let_in(name: str, category: FileCategory) -> str | None:
    try:
        return checked_name(name, category)
    except InvalidInput:
        return None


def readings(name: str) -> set[str]:
    """Return what a name may become on its way to a file system."""
    found = {name}
    for _ in range(3):
        found |= {unquote(reading) for reading in found}
    return found | {unicodedata.normalize("NFKC", reading) for reading in found}


def assert_inside(name: str) -> None:
    for reading in readings(name):
        for path, root in ((posixpath, FOLDER), (ntpath, "C:\\srv\\data")):
            joined = path.normpath(path.join(root, *reading.split("/")))
            if path is ntpath and path.splitdrive(reading)[0]:
                continue  # a drive's letter means something on Windows alone, where no part of Carrel runs
            assert joined != root, (name, reading)
            assert joined.startswith(root), (name, reading, joined)


@pytest.mark.parametrize("category", ["data", "artifacts"])
def test_fifty_thousand_hostile_names_stay_inside(category: FileCategory) -> None:
    chance = random.Random(17)
    taken = 0
    for _ in range(25_000):
        name = "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 6)))
        stored = let_in(name, category)
        if stored is not None:
            taken += 1
            assert_inside(stored)
    assert 0 < taken < 25_000


@given(st.text(min_size=1, max_size=60), st.sampled_from(["data", "artifacts", "notebooks"]))
def test_any_text_is_refused_or_stays_inside(name: str, category: FileCategory) -> None:
    stored = let_in(name, category)
    if stored is not None:
        assert_inside(stored)
        assert let_in(stored, category) == stored


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("sales.csv", "sales.csv"),
        ("e\u0301t\u00e9 2025.csv", "\u00e9t\u00e9 2025.csv"),
        ("100%.csv", "100%.csv"),
        ("..hidden", "..hidden"),
        ("a..b", "a..b"),
        ("\U0001f469\u200d\U0001f52c.png", "\U0001f469\u200d\U0001f52c.png"),
        ("x" * MAX_COMPONENT_BYTES, "x" * MAX_COMPONENT_BYTES),
    ],
)
def test_names_of_people_are_let_in(name: str, stored: str) -> None:
    assert checked_name(name, "data") == stored


@pytest.mark.parametrize(
    ("name", "category", "why"),
    [
        ("", "data", "is empty"),
        ("   ", "data", "is empty"),
        ("/etc/passwd", "artifacts", "is absolute"),
        ("a//b", "artifacts", "empty part"),
        ("a/", "artifacts", "empty part"),
        ("a/b", "data", "must not hold `/`"),
        ("..", "artifacts", "out of the folder"),
        ("a/../b", "artifacts", "out of the folder"),
        ("%2e%2e", "data", "out of the folder"),
        ("%25252e%25252e", "data", "out of the folder"),
        ("\uff0e\uff0e", "data", "out of the folder"),
        ("a\\b", "data", "out of the folder"),
        ("a%2fb", "data", "out of the folder"),
        ("a\0b", "data", "cannot be shown"),
        ("a\nb", "data", "cannot be shown"),
        ("txt\u202egnp.exe", "data", "cannot be shown"),
        ("\udc80", "data", "cannot be shown"),
        ("x" * (MAX_COMPONENT_BYTES + 1), "data", "longer than 255 bytes"),
        ("/".join(["x" * 200] * 6), "artifacts", f"longer than {MAX_NAME_BYTES} bytes"),
    ],
)
def test_other_names_are_refused_with_the_reason(name: str, category: FileCategory, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_name(name, category)
    assert why in caught.value.message
    assert caught.value.code == "invalid_name"


@pytest.mark.parametrize(
    ("name", "given", "stored"),
    [
        ("a.csv", None, "text/csv"),
        ("a.CSV", "", "text/csv"),
        ("a.csv", "application/octet-stream", "text/csv"),
        ("a.csv", "Text/Plain; charset=utf-8", "text/plain"),
        ("a.csv", "text/html\r\nX-Evil: 1", "text/csv"),
        ("a.ipynb", None, "application/x-ipynb+json"),
        ("a.png", None, "image/png"),
        ("a", None, "application/octet-stream"),
        ("a.nothing-known", None, "application/octet-stream"),
    ],
)
def test_media_types(name: str, given: str | None, stored: str) -> None:
    assert content_type_of(name, given) == stored
