"""The object store: bytes under keys that the server makes. Names and versions are the registry's (`artifacts`).

A key begins with the tenant and the session, and is never written twice. Signed addresses let a caller without a key
read one object for a few minutes: an S3 store checks its own, those of the local store are checked here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from obstore.exceptions import AlreadyExistsError, BaseError

from carrel_gateway.errors import Conflict, NotFound, Unavailable

READ_BYTES: Final = 1024 * 1024
SMALL_BYTES: Final = 8 * 1024 * 1024
"""Up to here an object is written at once, and the store itself refuses a key that is taken."""


class ObjectsAway(Unavailable):
    """The object store does not answer, or refuses."""

    code = "object_store_away"


@dataclass(frozen=True, slots=True)
class SignedObject:
    """What a signed address stands for."""

    key: str
    filename: str
    content_type: str
    size: int
    """Bytes."""
    chunks: AsyncIterator[bytes]


class StorageBackend(Protocol):
    """Puts, gets, deletes, signs."""

    async def put(
        self, key: str, chunks: AsyncIterator[bytes], *, content_type: str, filename: str | None = None
    ) -> None:
        """Write an object; it is there as a whole or not at all. What `chunks` raises comes out.

        Raises
        ------
        Conflict
            The key is taken.
        ObjectsAway
            The store does not answer.
        """
        ...

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Return the bytes of an object from an offset on, as they come.

        Raises
        ------
        NotFound
            There is no such object.
        ObjectsAway
            The store does not answer.
        """
        ...

    async def copy(self, source: str, target: str) -> None:
        """Make an object of the same content under another key, which must be free.

        Raises
        ------
        NotFound
            There is no such object.
        ObjectsAway
            The store does not answer.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens when it is not there."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key begins with the prefix (whole parts of it), and return how many."""
        ...

    async def sign(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
        """Return an address at which the object can be read for so many seconds, as a download."""
        ...

    async def open_signed(self, token: str) -> SignedObject:
        """Return what an address of this gateway (`/api/objects/<token>`) stands for.

        Raises
        ------
        PermissionDenied
            The address is forged or expired.
        NotFound
            The object is gone, or the store has addresses of its own.
        """
        ...

    async def ping(self) -> None:
        """Raise `ObjectsAway` when the store is away."""
        ...

    async def aclose(self) -> None:
        """Free what is held."""
        ...


class ObstoreBackend:
    """What the stores have in common: everything but signing."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(
        self, key: str, chunks: AsyncIterator[bytes], *, content_type: str, filename: str | None = None
    ) -> None:
        """Write an object."""
        head, rest = await _head(chunks)
        attributes = self._attributes(content_type, filename)
        failure: list[BaseException] = []
        try:
            if rest is None:
                await self._store.put_async(key, head, attributes=attributes, mode="create", use_multipart=False)
            else:
                await self._refuse_taken(key)
                await self._store.put_async(key, _kept(head, rest, failure), attributes=attributes)
        except AlreadyExistsError as error:
            raise Conflict("an object with this key is there already", code="object_exists") from error
        except Exception as error:
            if failure:
                raise failure[0] from None
            if isinstance(error, BaseError | OSError):  # the store's own not-found is a FileNotFoundError: no bucket
                raise _away() from error
            raise

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Return the bytes of an object."""
        return stream(await self._open(key, offset, length))

    async def copy(self, source: str, target: str) -> None:
        """Copy an object within the store."""
        try:
            await self._store.copy_async(source, target)
        except FileNotFoundError as error:
            raise NotFound("the file is not there any more", code="object_not_found") from error
        except (BaseError, OSError) as error:
            raise _away() from error

    async def delete(self, key: str) -> None:
        """Remove an object."""
        try:
            await self._store.delete_async(key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _away() from error

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every object below a prefix."""
        count = 0
        try:
            async for found in self._store.list(prefix):
                for item in found:
                    await self.delete(item["path"])
                    count += 1
        except (BaseError, OSError) as error:
            raise _away() from error
        return count

    async def ping(self) -> None:
        """List what is below a prefix that nothing has: a single object would not tell that the bucket is not there."""
        try:
            async for _ in self._store.list("ping", chunk_size=1):
                return
        except (BaseError, OSError) as error:
            raise _away() from error

    async def aclose(self) -> None:
        """Do nothing: the store holds no connection that must be ended."""

    async def _open(self, key: str, offset: int = 0, length: int | None = None) -> Any:
        options: dict[str, Any] = {}
        if length is not None:
            options["range"] = (offset, offset + length)
        elif offset:
            options["range"] = {"offset": offset}
        try:
            return await self._store.get_async(key, options=options or None)
        except FileNotFoundError as error:
            raise NotFound("the file is not there any more", code="object_not_found") from error
        except (BaseError, OSError) as error:
            raise _away() from error

    async def _refuse_taken(self, key: str) -> None:
        """Refuse a key that is taken: parts are put together without asking."""
        try:
            await self._store.head_async(key)
        except FileNotFoundError:
            return
        raise Conflict("an object with this key is there already", code="object_exists")

    def _attributes(self, content_type: str, filename: str | None) -> dict[str, str] | None:
        """Return what the store keeps with the object and sends with it."""
        raise NotImplementedError


async def _head(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """Return the first part and, when it is not all, the rest."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) > SMALL_BYTES:
            return bytes(head), chunks
    return bytes(head), None


async def _kept(head: bytes, rest: AsyncIterator[bytes], failure: list[BaseException]) -> AsyncIterator[bytes]:
    """Yield everything, and keep what the source raises: the store's library turns it into an error of its own."""
    yield head
    try:
        async for chunk in rest:
            if chunk:
                yield chunk
    except BaseException as error:
        failure.append(error)
        raise


async def stream(result: Any) -> AsyncIterator[bytes]:
    """Yield the bytes of a result, in parts."""
    try:
        async for chunk in result.stream(min_chunk_size=READ_BYTES):
            yield bytes(chunk)
    except (BaseError, OSError) as error:
        raise _away() from error


def _away() -> ObjectsAway:
    return ObjectsAway("the object store does not answer; try again soon")
