"""What the object stores of clouds have in common: they sign addresses themselves, and check them themselves.

Which store it is, and how it is reached and signed for, is said by `s3_objects`, `gcs_objects` and `azure_objects`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from obstore import sign_async
from obstore.exceptions import BaseError

from carrel_gateway.errors import NotFound
from carrel_gateway.storage.objects import ObjectsAway, ObstoreBackend, SignedObject

_MAX_HEADER_BYTES: Final = 1000
RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""How often a store is asked again that does not answer, or is too busy."""


class CloudObjects(ObstoreBackend):
    """One bucket or container."""

    def __init__(self, store: Any, signer: Any) -> None:
        """Take the store, and the same store as callers reach it: signatures can hold the host's name."""
        super().__init__(store)
        self._signer = signer

    async def sign(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
        """Return an address of the store; it sends the type and the name that the object was written with."""
        del filename, content_type
        try:
            return await sign_async(self._signer, "GET", key, timedelta(seconds=seconds))
        except BaseError as error:
            raise ObjectsAway("the object store's address could not be signed") from error

    async def open_signed(self, token: str) -> SignedObject:
        """Refuse: addresses are the store's own."""
        del token
        raise NotFound("files are not served at this address; ask for a new one", code="object_not_found")

    def _attributes(self, content_type: str, filename: str | None) -> dict[str, str] | None:
        disposition = "attachment"
        if filename:
            name = quote(filename.rpartition("/")[2], safe="")
            disposition = f"attachment; filename*=UTF-8''{name}"
        return {"Content-Type": content_type, "Content-Disposition": disposition[:_MAX_HEADER_BYTES]}


def client_options(endpoint: str | None) -> Any:
    """Return how a store at this address is spoken to: without encryption only where the address says so."""
    return {"allow_http": bool(endpoint and endpoint.startswith("http://")), "timeout": "60s"}
