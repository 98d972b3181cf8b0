"""Object stores: a local folder, a real S3, Azure's emulator, and an S3 that speaks as Google does.

Plan: bytes come back, whole and in parts; a key is written once, also in a race; a source that fails leaves nothing;
what is deleted is gone; a signed address works without a key, is a download, and neither survives a change of any
character nor its time; a store that is away says so.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import time_machine
from tests.support.blob_servers import ACCOUNT_KEY
from tests.support.state import chunks_of, collected
from yarl import URL

from carrel_gateway.errors import Conflict, NotFound, PermissionDenied
from carrel_gateway.storage.factory import open_objects
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.local_objects import PATH, LocalObjects
from carrel_gateway.storage.objects import SMALL_BYTES, ObjectsAway, StorageBackend

REFUSED = {400, 403, 404}
CLOUDS = ("s3", "gcs", "azure")


@pytest.fixture(params=["local", *CLOUDS])
async def objects(request: pytest.FixtureRequest, make_settings: Any) -> AsyncIterator[StorageBackend]:
    named: dict[str, Any] = {} if request.param == "local" else request.getfixturevalue(request.param)
    opened = await open_objects(make_settings(**named))
    yield opened
    await opened.aclose()


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of each store that signs its own addresses."""
    return request.getfixturevalue(request.param)


def moved(cloud: dict[str, Any], endpoint: str) -> dict[str, Any]:
    """Return the settings of a store with another endpoint."""
    if cloud["storage_type"] == "azure":
        account = cloud["azure_connection_string"].partition("BlobEndpoint=")[0]
        return {**cloud, "azure_connection_string": f"{account}BlobEndpoint={endpoint}/account"}
    return {**cloud, f"{cloud['storage_type']}_endpoint": endpoint}


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


async def test_a_store_that_is_away(make_settings: Any, cloud: dict[str, Any], unused_tcp_port: int) -> None:
    objects = await open_objects(make_settings(**moved(cloud, f"http://127.0.0.1:{unused_tcp_port}")))
    with pytest.raises(ObjectsAway):
        await objects.ping()


async def test_a_bucket_that_is_not_there(make_settings: Any, cloud: dict[str, Any]) -> None:
    name = next(name for name in cloud if name.endswith(("_bucket", "_container")))
    objects = await open_objects(make_settings(**{**cloud, name: "carrel-elsewhere"}))
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


# ---------------------------------------------------------------------- signed addresses of the stores


async def signed_by(objects: StorageBackend, seconds: int = 300) -> tuple[str, str]:
    """Return the key of a new object, and an address of it."""
    key = new_key()
    await put(objects, key, b"data")
    return key, await objects.sign(key, seconds=seconds, filename="ignored", content_type="text/html")


async def status_of(client: aiohttp.ClientSession, url: str) -> int:
    async with client.get(URL(url, encoded=True)) as answer:
        await answer.read()
        return answer.status


async def test_an_address_is_a_download(make_settings: Any, cloud: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**cloud))
    key, url = await signed_by(objects)
    other = new_key()
    await put(objects, other, b"other")
    async with aiohttp.ClientSession() as client:
        async with client.get(URL(url, encoded=True)) as answer:
            assert (answer.status, await answer.read(), answer.headers["content-type"]) == (200, b"data", "text/csv")
            name = "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"
            assert answer.headers["content-disposition"] == name
        for forged in (url.replace(key, other), url.partition("?")[0]):
            assert await status_of(client, forged) in REFUSED
    with pytest.raises(NotFound):
        await objects.open_signed("anything")


async def test_no_byte_of_an_address_can_be_changed(make_settings: Any, cloud: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**cloud))
    key, url = await signed_by(objects)
    first = url.index("/", len("http://")) + 1
    own = url.index(key) if key in url else url.index(key.replace("/", "%2F"))
    limit = asyncio.Semaphore(8)
    async with aiohttp.ClientSession() as client:

        async def changed(place: int) -> tuple[int, int]:
            other = "A" if url[place] not in "Aa" else "B"
            async with limit:
                return place, await status_of(client, url[:place] + other + url[place + 1 :])

        assert await status_of(client, url) == 200
        answers = await asyncio.gather(*(changed(place) for place in range(first, len(url))))
        assert await status_of(client, url) == 200  # and no change has used it up
    assert {url[: place + 1]: status for place, status in answers if status not in REFUSED} == {}
    # A store may call it malformed that a date or the account's name is none, but not the key or the signature.
    signature = re.search(r"(?:Signature|sig)=([^&]*)", url)
    assert signature
    values = {*range(own, url.index("?")), *range(*signature.span(1))}
    assert {url[: place + 1]: status for place, status in answers if status != 403 and place in values} == {}


async def test_addresses_expire_by_the_stores_clock(make_settings: Any, cloud: dict[str, Any]) -> None:
    objects = await open_objects(make_settings(**cloud))
    _, url = await signed_by(objects, seconds=3)
    deadline = time.monotonic() + 30
    async with aiohttp.ClientSession() as client:
        assert await status_of(client, url) == 200
        while (status := await status_of(client, url)) == 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    assert status == 403


async def test_addresses_name_the_public_endpoint(make_settings: Any, cloud: dict[str, Any]) -> None:
    name = f"{cloud['storage_type']}_public_endpoint"
    objects = await open_objects(make_settings(**{**cloud, name: "https://files.example.org"}))
    _, url = await signed_by(objects, seconds=60)
    assert url.startswith("https://files.example.org/carrel/")
    assert not [secret for secret in ("test-secret", ACCOUNT_KEY, "PRIVATE") if secret in url]


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
