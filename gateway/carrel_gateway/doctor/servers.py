"""Checks of what the gateway speaks to: database, Redis, object store, language models; and of its keys."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from typing import Final

from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.doctor import machine
from carrel_gateway.doctor.findings import Missing
from carrel_gateway.errors import CarrelError, InvalidInput, ModelFailed
from carrel_gateway.identity.secrets import load_master_keys
from carrel_gateway.kernels.signing import load_host_keys
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Database
from carrel_gateway.storage.engine import database_url, sqlite_file
from carrel_gateway.storage.factory import open_objects
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.migrate import HEAD, KNOWN, SchemaMismatch

_PROBE: Final = b"carrel doctor"
_STORES: Final = {
    "s3": "CARREL_S3_BUCKET, CARREL_S3_REGION, CARREL_S3_ENDPOINT, CARREL_S3_ACCESS_KEY and CARREL_S3_SECRET_KEY; the "
    "key needs s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket on the bucket",
    "gcs": "CARREL_GCS_BUCKET and GOOGLE_APPLICATION_CREDENTIALS; the account needs roles/storage.objectAdmin on the "
    "bucket",
    "azure": "CARREL_AZURE_CONTAINER and CARREL_AZURE_CONNECTION_STRING; the account needs to read, write and delete "
    "blobs",
}


async def database(settings: Settings) -> str:
    """Return the revision of the database's schema."""
    try:
        url = database_url(settings.database)
        file = sqlite_file(url)
        if file is None:
            await (await Database.connect(settings)).aclose()
            return f"Postgres, schema {HEAD}"
    except SchemaMismatch as error:
        raise Missing(error.message, _after(error.message)) from error
    except CarrelError as error:
        raise Missing(
            error.message, "check CARREL_DATABASE_URL, that the server runs, and that it lets this machine in"
        ) from error
    file = file.expanduser().absolute()
    if not file.exists():
        return f"SQLite, {file} will be made at the first start"
    revision = _revision(str(file))
    if revision is not None and revision not in KNOWN:
        raise Missing(
            f"the database's schema is {revision}, which this version ({HEAD}) does not know",
            "install the newer Carrel that made it, or set CARREL_DATA_DIR to another folder",
        )
    behind = "" if revision == HEAD else f", brought to {HEAD} at the next start"
    return f"SQLite, schema {revision or 'none'}{behind}"


def _after(message: str) -> str:
    return message.partition("; ")[2] or "see docs/how-to/helm.md"


def _revision(file: str) -> str | None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if there else None
    except sqlite3.Error as error:
        raise Missing(
            f"{file} cannot be read: {error}", "restore it from a back-up (docs/how-to/back-up.md)"
        ) from error
    return None if row is None else str(row[0])


async def redis(settings: Settings) -> str:
    """Return that Redis answers."""
    if settings.redis_url is None:
        return "none; one gateway needs none"
    from carrel_gateway.storage.redis_clients import FAILURES, close_client, open_client  # noqa: PLC0415  an extra

    advice = "check CARREL_REDIS_URL (or REDIS_HOST and REDIS_PASSWORD), and that the server runs"
    try:
        client = open_client(settings.redis_url, connections=1, timeout_seconds=3)
    except CarrelError as error:
        raise Missing(error.message, advice) from error
    try:
        info = await client.info("server")
    except FAILURES as error:
        raise Missing(f"Redis does not answer: {type(error).__name__}", advice) from error
    finally:
        await close_client(client)
    return f"Redis {info['redis_version']}"


async def objects(settings: Settings) -> str:
    """Return that objects can be written, read and deleted."""
    if settings.storage_type == "local":
        return machine.folder(settings.objects_dir.expanduser().absolute(), "CARREL_STORAGE_PATH")
    advice = f"check {_STORES[settings.storage_type]}"
    done = "opened"
    key = f"doctor/{new_id()}"
    try:
        store = await open_objects(settings)
        try:
            done = "written to"
            await store.put(key, _probe(), content_type="text/plain")
            done = "read from"
            read = b"".join([chunk async for chunk in await store.get(key)])
            done = "deleted from"
            await store.delete(key)
        finally:
            await store.aclose()
    except (CarrelError, OSError, ValueError) as error:
        raise Missing(f"the {settings.storage_type} store cannot be {done}", advice) from error
    if read != _PROBE:
        raise Missing(f"the {settings.storage_type} store gives back other bytes than it was given", advice)
    return f"{settings.storage_type}: written, read and deleted"


async def _probe() -> AsyncIterator[bytes]:
    yield _PROBE


async def models(settings: Settings) -> str:
    """Return the models that sessions may choose, for all of which there is a key."""
    registry = ModelRegistry(settings)
    for one in registry.list():
        try:
            registry.require(one.name)
        except (ModelFailed, InvalidInput) as error:
            happened, _, advice = error.message.partition(": ")
            raise Missing(happened, advice) from error
    return ", ".join(one.name for one in registry.list())


def keys(settings: Settings) -> str:
    """Return that the keys of this installation can be read."""
    made_here = settings.is_embedded and settings.secret_keys is None
    try:
        if not made_here:
            load_master_keys(settings)
        if settings.kernel_private_key_file:
            load_host_keys(settings)
    except CarrelError as error:
        raise Missing(error.message, "docs/how-to/helm.md says how they are made") from error
    return "made in the data folder at the first start" if made_here else "all can be read"
