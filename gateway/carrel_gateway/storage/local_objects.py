"""The object store in a local folder, with addresses that this gateway signs and checks (HMAC-SHA-256)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
from obstore.store import LocalStore

from carrel_gateway.errors import PermissionDenied
from carrel_gateway.settings import Settings
from carrel_gateway.storage.folder import DataFolderUnusable
from carrel_gateway.storage.objects import ObjectsAway, ObstoreBackend, SignedObject, stream

PATH: Final = "/api/objects/"
KEY_FILE: Final = "object-signing.key"
_MAX_TOKEN: Final = 4096


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    """What is signed."""

    method: str
    key: str
    expires_at: float
    """Unix time in seconds."""
    filename: str
    content_type: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Claims)


class LocalObjects(ObstoreBackend):
    """One folder."""

    def __init__(self, settings: Settings) -> None:
        """Make the folder when it is not there.

        Raises
        ------
        DataFolderUnusable
            It cannot be made, or the signing key cannot be read.
        """
        self._folder = settings.objects_dir
        self._public_url = (settings.public_url or "").rstrip("/")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._secret = _signing_key(settings.data_dir / KEY_FILE)
        except OSError as error:
            raise DataFolderUnusable(
                f"cannot use the folder {self._folder}: {error.strerror}; set CARREL_STORAGE_PATH or CARREL_DATA_DIR"
            ) from error
        super().__init__(LocalStore(self._folder, automatic_cleanup=True))

    async def put(
        self, key: str, chunks: AsyncIterator[bytes], *, content_type: str, filename: str | None = None
    ) -> None:
        """Write an object, down to the disk: what is acknowledged outlives a power cut."""
        await super().put(key, chunks, content_type=content_type, filename=filename)
        await asyncio.to_thread(_sync, self._folder / key)

    async def copy(self, source: str, target: str) -> None:
        """Copy an object, down to the disk."""
        await super().copy(source, target)
        await asyncio.to_thread(_sync, self._folder / target)

    async def sign(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
        """Return an address of this gateway."""
        claims = _encoder.encode(_Claims("GET", key, time.time() + seconds, filename, content_type))
        return f"{self._public_url}{PATH}{_text(claims)}.{_text(self._mac(claims))}"

    async def open_signed(self, token: str) -> SignedObject:
        """Check an address and open its object."""
        claims = self._verify(token)
        result = await self._open(claims.key)
        return SignedObject(
            key=claims.key,
            filename=claims.filename,
            content_type=claims.content_type,
            size=result.meta["size"],
            chunks=stream(result),
        )

    async def ping(self) -> None:
        """Check that the folder can be written to."""
        if not await asyncio.to_thread(os.access, self._folder, os.W_OK | os.X_OK):
            raise ObjectsAway("the folder of the object store is not there or cannot be written to")

    def _attributes(self, content_type: str, filename: str | None) -> dict[str, str] | None:
        del content_type, filename  # files have none; the registry knows both
        return None

    def _mac(self, claims: bytes) -> bytes:
        return hmac.digest(self._secret, claims, hashlib.sha256)

    def _verify(self, token: str) -> _Claims:
        if len(token) > _MAX_TOKEN:
            raise _forged()
        body, _, mac = token.partition(".")
        try:
            claims, presented = _bytes(body), _bytes(mac)
        except (ValueError, binascii.Error) as error:
            raise _forged() from error
        if not hmac.compare_digest(self._mac(claims), presented):
            raise _forged()
        found = _decoder.decode(claims)
        if found.method != "GET":
            raise _forged()
        if found.expires_at < time.time():
            raise PermissionDenied("this address has expired; ask for a new one", code="address_expired")
        return found


def _forged() -> PermissionDenied:
    return PermissionDenied("this address was not made here; ask for a new one", code="address_forged")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Return what `_text` encoded; another spelling of the same bytes is refused."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(data) != text:
        raise ValueError("not canonical")
    return data


def _sync(path: Path) -> None:
    for target in (path, path.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _signing_key(path: Path) -> bytes:
    """Return the key of this installation, made the first time."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        key = secrets.token_bytes(32)
        file.write(key)
    return key
