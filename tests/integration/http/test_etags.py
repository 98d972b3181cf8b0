"""Reads that a caller has already.

Plan: every conditional read answers a tag, and 304 without a body while it is the same, as part of a list, weak, or
`*`; another tag, and a change, get the whole answer with a new tag; a document without the tag is whole.
"""

from __future__ import annotations

import pytest

PATHS = ["", "/config", "/files", "/files/a.csv", "/artifacts?category=data", "/notebook", "/export"]


@pytest.fixture
def full(api, session):
    api.post(f"{session}/files", files={"file": ("a.csv", b"x\n1\n", "text/csv")})
    return session


def test_what_has_not_changed_is_not_sent_again(api, full):
    artifact = api.get(f"{full}/files").json()["items"][0]["id"]
    for path in [f"{full}{path}" for path in PATHS] + ["/api/sessions", f"/api/artifacts/{artifact}"]:
        first = api.get(path)
        assert "etag" in first.headers, (path, first.status_code)
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = api.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers.get("etag")) == (304, b"", tag), (path, known)
        for other in ('"other"', "nothing", ""):
            assert api.get(path, headers={"If-None-Match": other}).content == first.content


def test_what_has_changed_is_sent(api, full):
    before = {path: api.get(f"{full}{path}").headers["etag"] for path in ("", "/files", "/files/a.csv", "/export")}
    api.post(f"{full}/files", files={"file": ("a.csv", b"x\n2\n", "text/csv")})
    for path, tag in before.items():
        now = api.get(f"{full}{path}", headers={"If-None-Match": tag})
        assert now.status_code == 200
        assert now.headers["etag"] != tag
