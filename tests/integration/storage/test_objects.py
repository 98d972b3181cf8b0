"""Object stores: a local folder and a real S3.

Plan: bytes come back, whole and in parts; a key is written once, also in a race; a source that fails leaves nothing;
what is deleted is gone; a signed address works without a key, is a download, and neither survives a change of any
character nor its time; a store that is away says so.
"""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
import time_machine
from tests.support.state import chunks_of, collected

from carrel_gateway.errors import Conflict, NotFound, PermissionDenied
from carrel_gateway.storage.factory import open_objects
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.local_objects import PATH, LocalObjects
from carrel_gateway.storage.objects import SMALL_BYTES, ObjectsAway, StorageBackend


@pytest.fixture(params=["local", "s3"])
async def objects(request: pytest.FixtureRequest, make_settings: Any) -> AsyncIterator[StorageBackend]:
    named = request.getfixturevalue("s3") if request.param == "s3" else {}
    opened = await open_objects(make_settings(**named))
    yield opened
    await opened.aclose()


def new_key() -> str:
    return f"{new_id()}/{new_id()}/{new_id()}"


async def put(objects: StorageBackend, key: str, *parts: bytes) -> None:
    await objects.put(key, chunks_of(*parts), content_type="text/csv", filename='a "b"\r\nc/größe.csv')


async def test_bytes_come_back_whole_and_in_parts(objects: StorageBackend) -> None:
    key = new_key()
    await put(objects, key, b"0123", b"456789")
    assert await collected(await objects.get(key)) == b"0123456789"
    assert await collected(await objects.get(key, offset=3)) == b"3456789"
    assert await collected(await objects.get(key, offset=3, length=4)) == b"3456"
    with pytest.raises(NotFound):
        await objects.get(new_key())


async def test_a_key_is_written_once(objects: StorageBackend) -> None:
    key = new_key()
    outcomes = await asyncio.gather(
        *(put(objects, key, str(place).encode()) for place in range(6)), return_exceptions=True
    )
    assert sorted(map(str, map(type, outcomes))) == sorted(map(str, [type(None), *[Conflict] * 5]))
    winner = outcomes.index(None)
    assert await collected(await objects.get(key)) == str(winner).encode()
    with pytest.raises(Conflict):
        await put(objects, key, b"x" * (SMALL_BYTES + 1))
    assert await collected(await objects.get(key)) == str(winner).encode()


async def test_a_source_that_fails_leaves_nothing(objects: StorageBackend) -> None:
    async def broken(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size
        raise KeyError("source")

    for size in (10, SMALL_BYTES + 1, 3 * SMALL_BYTES):
        key = new_key()
        with pytest.raises(KeyError, match="source"):
            await objects.put(key, broken(size), content_type="text/plain")
        with pytest.raises(NotFound):
            await objects.get(key)


async def test_deletion_by_key_and_by_prefix(objects: StorageBackend) -> None:
    tenant = new_id()
    keys = [f"{tenant}/{session}/{place}" for session in ("a", "ab") for place in range(3)]
    for key in keys:
        await put(objects, key, b"x")
    await objects.delete(keys[0])
    await objects.delete(keys[0])
    with pytest.raises(NotFound):
        await objects.get(keys[0])
    assert await objects.delete_prefix(f"{tenant}/a") == 2  # a prefix is whole parts: not `ab`
    assert await objects.delete_prefix(f"{tenant}") == 3
    assert await objects.delete_prefix(f"{tenant}") == 0


async def test_ping(objects: StorageBackend) -> None:
    await objects.ping()


async def test_an_s3_that_is_away(make_settings: Any, s3: dict[str, Any], unused_tcp_port: int) -> None:
    objects = await open_objects(make_settings(**{**s3, "s3_endpoint": f"http://127.0.0.1:{unused_tcp_port}"}))
    with pytest.raises(ObjectsAway):
        await objects.ping()


async def test_a_bucket_that_is_not_there(make_settings: Any, s3: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**{**s3, "s3_bucket": "carrel-elsewhere"}))
    with pytest.raises(ObjectsAway):
        await objects.ping()
    for size in (1, SMALL_BYTES + 1):
        with pytest.raises(ObjectsAway):
            await put(objects, new_key(), b"x" * size)


async def test_a_folder_that_is_away(make_settings: Any) -> None:
    settings = make_settings()
    objects = await open_objects(settings)
    settings.objects_dir.rmdir()
    with pytest.raises(ObjectsAway):
        await objects.ping()


# ---------------------------------------------------------------------- signed addresses of an S3


def fetch(url: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}, error.read()


async def test_s3_addresses_are_downloads_and_cannot_be_forged(make_settings: Any, s3: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**s3))
    key, other = new_key(), new_key()
    await put(objects, key, b"data")
    await put(objects, other, b"other")
    url = await objects.sign(key, seconds=300, filename="ignored", content_type="text/html")
    status, headers, body = await asyncio.to_thread(fetch, url)
    assert (status, body, headers["content-type"]) == (200, b"data", "text/csv")
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"
    last = url[-1]
    for forged in (
        url.replace(key, other),
        url.replace("X-Amz-Expires=300", "X-Amz-Expires=301"),
        url[:-1] + ("0" if last != "0" else "1"),
        url.partition("?")[0],
    ):
        assert (await asyncio.to_thread(fetch, forged))[0] == 403
    with pytest.raises(NotFound):
        await objects.open_signed("anything")


async def test_s3_addresses_expire(make_settings: Any, s3: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**s3))
    key = new_key()
    await put(objects, key, b"data")
    url = await objects.sign(key, seconds=1, filename="a", content_type="text/plain")
    deadline = time.monotonic() + 30
    while (status := (await asyncio.to_thread(fetch, url))[0]) == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert status == 403


async def test_addresses_name_the_public_endpoint(make_settings: Any, s3: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**s3, s3_public_endpoint="https://files.example.org"))
    url = await objects.sign(new_key(), seconds=60, filename="a", content_type="text/plain")
    assert url.startswith("https://files.example.org/carrel/")
    assert "test-secret" not in url


# ---------------------------------------------------------------------- signed addresses of the gateway


@pytest.fixture
async def local(make_settings: Any) -> StorageBackend:
    return await open_objects(make_settings(public_url="https://carrel.example.org/"))


async def token_of(objects: StorageBackend, key: str, seconds: int = 300) -> str:
    url = await objects.sign(key, seconds=seconds, filename="größe.csv", content_type="text/csv")
    return url.rpartition("/")[2]


async def test_an_address_of_the_gateway_opens_its_object(local: StorageBackend) -> None:
    key = new_key()
    await put(local, key, b"data")
    url = await local.sign(key, seconds=300, filename="größe.csv", content_type="text/csv")
    assert url.startswith(f"https://carrel.example.org{PATH}")
    signed = await local.open_signed(url.rpartition("/")[2])
    assert (signed.key, signed.filename, signed.content_type, signed.size) == (key, "größe.csv", "text/csv", 4)
    assert await collected(signed.chunks) == b"data"
    await local.delete(key)
    with pytest.raises(NotFound):
        await local.open_signed(url.rpartition("/")[2])


async def test_no_character_of_an_address_can_be_changed(local: StorageBackend) -> None:
    key = new_key()
    await put(local, key, b"data")
    token = await token_of(local, key)
    for place, char in enumerate(token):
        for other in ("A", "B", ".", "_", "=", "", "é", "\n"):
            if other != char:
                with pytest.raises(PermissionDenied):
                    await local.open_signed(token[:place] + other + token[place + 1 :])
    for forged in ("", ".", "..", token + "A", "A" * 10_000, token.partition(".")[0]):
        with pytest.raises(PermissionDenied):
            await local.open_signed(forged)


async def test_addresses_of_the_gateway_expire(local: StorageBackend) -> None:
    key = new_key()
    await put(local, key, b"data")
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        token = await token_of(local, key, seconds=300)
        clock.shift(299)
        await local.open_signed(token)
        clock.shift(2)
        with pytest.raises(PermissionDenied) as caught:
            await local.open_signed(token)
    assert caught.value.code == "address_expired"


async def test_another_installations_addresses_are_refused(make_settings: Any, tmp_path: Any) -> None:
    mine, theirs = LocalObjects(make_settings()), LocalObjects(make_settings(data_dir=tmp_path / "theirs"))
    key = new_key()
    await put(mine, key, b"data")
    with pytest.raises(PermissionDenied):
        await mine.open_signed(await token_of(theirs, key))
    again = LocalObjects(make_settings())
    await again.open_signed(await token_of(mine, key))  # the key of an installation stays over restarts
