"""Uploads over HTTP: one or many, listed, downloaded byte for byte, replaced, deleted, and what code sees of them."""

from __future__ import annotations

import hashlib
import os

import pytest


def upload(api, session, *files: tuple[str, bytes]):
    return api.post(f"{session}/files", files=[("file", (name, data, "text/csv")) for name, data in files])


def sees(api, session, name: str) -> str:
    """Return what code prints of a file's bytes, or that it is not there."""
    code = f"""
import os
path = {f"data/{name}"!r}
print(open(path, "rb").read().hex() if os.path.exists(path) else "none")
"""
    done = api.post(f"{session}/kernel/execute", json={"code": code}).json()
    assert done["status"] == "ok", done
    return done["outputs"][0]["text"].strip()


def test_many_files_at_once_come_back_byte_for_byte(api, session):
    contents = {"a.csv": b"x\n1\n", "b.bin": os.urandom(300_000), "über uns; 2.csv": "ü\n".encode()}
    stored = upload(api, session, *contents.items())
    assert stored.status_code == 201, stored.text
    assert [item["name"] for item in stored.json()["items"]] == list(contents)
    listed = {item["name"]: item for item in api.get(f"{session}/files").json()["items"]}
    assert set(listed) == set(contents)
    for name, data in contents.items():
        assert listed[name]["sha256"] == hashlib.sha256(data).hexdigest()
        answer = api.get(f"{session}/files/{name}")
        assert answer.content == data
        assert answer.headers["content-length"] == str(len(data))
        assert sees(api, session, name) == data.hex()


def test_the_same_name_again_is_a_new_version(api, session):
    (first,) = upload(api, session, ("t.csv", b"old")).json()["items"]
    (again,) = upload(api, session, ("t.csv", b"new")).json()["items"]
    assert again["version"] == 2
    (listed,) = api.get(f"{session}/files").json()["items"]
    assert listed["id"] == again["id"]
    assert api.get(f"{session}/files/t.csv").content == b"new"
    assert sees(api, session, "t.csv") == b"new".hex()
    for item, data in ((first, b"old"), (again, b"new")):
        assert api.get(f"/api/artifacts/{item['id']}").content == data


def test_a_deleted_file_is_gone_for_people_and_for_code(api, session):
    upload(api, session, ("t.csv", b"x"), ("kept.csv", b"y"))
    assert sees(api, session, "t.csv") == b"x".hex()
    assert api.delete(f"{session}/files/t.csv").status_code == 204
    assert [item["name"] for item in api.get(f"{session}/files").json()["items"]] == ["kept.csv"]
    assert api.get(f"{session}/files/t.csv").status_code == 404
    assert sees(api, session, "t.csv") == "none"
    assert api.post(f"{session}/kernel/reset").status_code == 200
    assert sees(api, session, "t.csv") == "none"
    assert sees(api, session, "kept.csv") == b"y".hex()


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"\r\n" * 3])
def test_any_bytes_are_a_file(api, session, data: bytes):
    upload(api, session, ("t", data))
    assert api.get(f"{session}/files/t").content == data


def test_a_signed_address_needs_no_key_and_is_a_download_that_can_do_nothing(api, gateway, session):
    (stored,) = upload(api, session, ("t.html", b"<script>1</script>")).json()["items"]
    for path in (f"{session}/files/t.html?url=1", f"/api/artifacts/{stored['id']}?url=1"):
        told = api.get(path).json()
        assert told["expires_in_seconds"] == 300
        with gateway.client(key=None) as anybody:
            answer = anybody.get(told["url"])
            forged = anybody.get(told["url"][:-2] + ("BA" if told["url"].endswith("AA") else "AA"))
        assert (answer.status_code, answer.content) == (200, b"<script>1</script>")
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert (forged.status_code, forged.json()["code"]) == (403, "address_forged")
    address = api.get(f"{session}/files/t.html?url=1").json()["url"]
    api.delete(f"{session}/files/t.html")
    with gateway.client(key=None) as anybody:
        assert anybody.get(address).json()["code"] == "object_not_found"
    assert api.get(f"{session}/files/t.html?url=1").json()["code"] == "artifact_not_found"
