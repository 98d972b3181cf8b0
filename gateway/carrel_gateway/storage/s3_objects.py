"""The object store on S3 and what speaks like it. It signs its own addresses, and checks them itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import quote

from obstore import sign_async
from obstore.exceptions import BaseError
from obstore.store import S3Store

from carrel_gateway.errors import NotFound
from carrel_gateway.settings import Settings
from carrel_gateway.storage.objects import ObjectsAway, ObstoreBackend, SignedObject

_MAX_HEADER_BYTES: Final = 1000


class S3Objects(ObstoreBackend):
    """One bucket."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(_store(settings, settings.s3_endpoint))
        # Signatures hold the host, so addresses for callers are signed for the name under which they reach the store.
        self._signer = _store(settings, settings.s3_public_endpoint or settings.s3_endpoint)

    async def sign(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
        """Return an address of the store; it sends the type and the name that the object was written with."""
        del filename, content_type
        method: Literal["GET"] = "GET"
        try:
            return await sign_async(self._signer, method, key, timedelta(seconds=seconds))
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


def _store(settings: Settings, endpoint: str | None) -> S3Store:
    options: dict[str, Any] = {"region": settings.s3_region}
    if settings.s3_access_key and settings.s3_secret_key:
        options["access_key_id"] = settings.s3_access_key.get_secret_value()
        options["secret_access_key"] = settings.s3_secret_key.get_secret_value()
    if endpoint:
        options["endpoint"] = endpoint
        options["virtual_hosted_style_request"] = False  # a bucket's own host name needs a DNS that knows it
    return S3Store(
        settings.s3_bucket,
        **options,
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://")), "timeout": "60s"},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )
