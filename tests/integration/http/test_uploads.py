"""Uploads in parts over HTTP, as a client of tus sends them: cut, gone on with, whole, given up; what is refused."""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
from urllib.parse import urlsplit

import pytest
from tests.integration.http.test_files import sees
from tests.support.serving import gateway as running_gateway
from tests.support.serving import start

VERSION = {"Tus-Resumable": "1.0.0"}


def metadata(**named: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in named.items())


def begin(api, session, length: int, name: str = "t.csv", **headers: str):
    given = {"Upload-Length": str(length), "Upload-Metadata": metadata(filename=name, filetype="text/csv")}
    return api.post(f"{session}/uploads", headers={**VERSION, **given, **headers})


def send(api, place: str, offset: int, data: bytes, **headers: str):
    given = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return api.patch(place, content=data, headers={**VERSION, **given, **headers})


def test_a_file_in_parts_is_one_file(api, session):
    data = os.urandom(1_500_000)
    begun = begin(api, session, len(data))
    assert begun.status_code == 201, begun.text
    place = begun.headers["location"]
    assert (begun.headers["tus-resumable"], begun.headers["upload-offset"]) == ("1.0.0", "0")
    assert begun.headers["upload-expires"].endswith("GMT")
    for offset in range(0, len(data), 600_000):
        head = api.head(place, headers=VERSION)
        assert (head.status_code, head.content) == (200, b"")
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == (str(offset), str(len(data)))
        assert head.headers["cache-control"] == "no-store"
        sent = send(api, place, offset, data[offset : offset + 600_000])
        assert sent.status_code == 204, sent.text
    (listed,) = api.get(f"{session}/files").json()["items"]
    assert (sent.headers["carrel-artifact-id"], listed["size"]) == (listed["id"], len(data))
    assert api.get(f"{session}/files/t.csv").content == data
    told = api.get(place).json()
    assert (told["state"], told["artifact_id"], told["received"]) == ("done", listed["id"], len(data))
    assert api.head(place, headers=VERSION).headers["upload-offset"] == str(len(data))
    late = send(api, place, len(data), b"x")
    assert (late.status_code, late.json()["code"]) == (413, "file_too_large")


def test_code_sees_it_and_an_empty_file_is_whole_at_once(api, session):
    assert sees(api, session, "t.csv") == "none"
    place = begin(api, session, 2).headers["location"]
    send(api, place, 0, b"ab")
    assert sees(api, session, "t.csv") == b"ab".hex()
    empty = begin(api, session, 0, "empty.csv")
    assert empty.json()["state"] == "done"
    assert api.get(f"{session}/files/empty.csv").content == b""


def cut_after(api, place: str, data: bytes) -> None:
    """Begin to send more than `data`, and close the connection after it, once the gateway waits for it."""
    target = urlsplit(str(api.base_url))
    lines = [
        f"PATCH {place} HTTP/1.1",
        f"Host: {target.netloc}",
        f"Authorization: {api.headers['authorization']}",
        "Tus-Resumable: 1.0.0",
        "Upload-Offset: 0",
        "Content-Type: application/offset+octet-stream",
        f"Content-Length: {len(data) + 1}",
        "Expect: 100-continue",
        "\r\n",
    ]
    with socket.create_connection((target.hostname, target.port), 10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        if connection.recv(100).startswith(b"HTTP/1.1 100"):  # or else the one before has come meanwhile
            connection.sendall(data)


def test_what_a_cut_connection_has_brought_is_kept(api, session):
    place = begin(api, session, 1000).headers["location"]
    deadline = time.monotonic() + 60
    while not (received := api.get(place).json()["received"]):
        # What the gateway had not read yet when it heard of the end is lost, and is sent again.
        assert time.monotonic() < deadline
        cut_after(api, place, b"x" * 300)
    assert received == 300
    assert send(api, place, 300, b"y" * 700).status_code == 204
    assert api.get(f"{session}/files/t.csv").content == b"x" * 300 + b"y" * 700


def test_another_gateway_goes_on_where_a_killed_one_stopped(tmp_path):
    data = os.urandom(900_000)
    first = start(tmp_path / "data")
    with first.client() as api:
        session = f"/api/sessions/{api.post('/api/sessions', json={}).json()['id']}"
        place = begin(api, session, len(data)).headers["location"]
        assert send(api, place, 0, data[:500_000]).status_code == 204
    first.stop(signal.SIGKILL)
    with running_gateway(tmp_path / "data") as second, second.client() as api:
        assert api.head(place, headers=VERSION).headers["upload-offset"] == "500000"
        assert send(api, place, 500_000, data[500_000:]).status_code == 204
        assert api.get(f"{session}/files/t.csv").content == data


def test_an_upload_that_is_given_up_is_gone(api, session):
    place = begin(api, session, 4).headers["location"]
    assert send(api, place, 0, b"ab").status_code == 204
    assert api.delete(place, headers=VERSION).status_code == 204
    for answer in (send(api, place, 2, b"cd"), api.get(place), api.delete(place, headers=VERSION)):
        assert (answer.status_code, answer.json()["code"]) == (404, "upload_not_found")
    assert api.head(place, headers=VERSION).status_code == 404
    assert api.get(f"{session}/files").json()["items"] == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "tus_version"),
        ({"Upload-Length": "-1"}, 422, "validation_failed"),
        ({"Upload-Length": "3000000"}, 413, "file_too_large"),
        ({"Upload-Metadata": "filename not base64"}, 400, "invalid_metadata"),
        ({"Upload-Metadata": metadata(filetype="text/csv")}, 400, "invalid_name"),
        ({"Upload-Metadata": metadata(filename="../x")}, 400, "invalid_name"),
    ],
)
def test_what_is_no_beginning(api, session, headers, status, code):
    answer = begin(api, session, 4, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "2.0.0"}, 412, "tus_version"),
        ({"Content-Type": "text/plain"}, 400, "chunk_expected"),
        ({"Upload-Offset": "1"}, 409, "upload_offset"),
        ({"Upload-Offset": "x"}, 422, "validation_failed"),
    ],
)
def test_what_is_no_part(api, session, headers, status, code):
    place = begin(api, session, 4).headers["location"]
    answer = send(api, place, 0, b"ab", **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert api.get(place).json()["received"] == 0


def test_headers_that_are_needed(api, session):
    answer = api.post(f"{session}/uploads", headers=VERSION)
    assert (answer.status_code, answer.json()["code"]) == (400, "length_needed")
    place = begin(api, session, 4).headers["location"]
    part = {**VERSION, "Content-Type": "application/offset+octet-stream"}
    answer = api.patch(place, content=b"ab", headers=part)
    assert (answer.status_code, answer.json()["code"]) == (400, "offset_needed")


def test_a_key_names_one_upload(api, session):
    first, again = (begin(api, session, 4, **{"Idempotency-Key": "one"}) for _ in range(2))
    assert first.headers["location"] == again.headers["location"]
    other = begin(api, session, 5, **{"Idempotency-Key": "one"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_an_archived_session_takes_nothing_more(api, session):
    place = begin(api, session, 4).headers["location"]
    assert api.post(f"{session}/archive").status_code == 200
    assert begin(api, session, 4).json()["code"] == "archived"
    assert send(api, place, 0, b"ab").json()["code"] == "archived"
