"""The object store on S3 and what speaks like it."""

from __future__ import annotations

from typing import Any

from obstore.store import S3Store

from carrel_gateway.settings import Settings
from carrel_gateway.storage.cloud_objects import RETRIES, CloudObjects, client_options


class S3Objects(CloudObjects):
    """One bucket."""

    def __init__(self, settings: Settings) -> None:
        store = _store(settings, settings.s3_endpoint)
        super().__init__(store, _store(settings, settings.s3_public_endpoint or settings.s3_endpoint))


def _store(settings: Settings, endpoint: str | None) -> S3Store:
    options: dict[str, Any] = {"region": settings.s3_region}
    if settings.s3_access_key and settings.s3_secret_key:
        options["access_key_id"] = settings.s3_access_key.get_secret_value()
        options["secret_access_key"] = settings.s3_secret_key.get_secret_value()
    if endpoint:
        options["endpoint"] = endpoint
        options["virtual_hosted_style_request"] = False  # a bucket's own host name needs a DNS that knows it
    return S3Store(settings.s3_bucket, **options, client_options=client_options(endpoint), retry_config=RETRIES)
