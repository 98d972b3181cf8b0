"""The object store on Azure Blob Storage.

The connection string is the one that Azure shows. Without an account key in it the platform's own identity is used
(workload or managed identity), and addresses are signed with a key that Azure delegates to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore

from carrel_gateway.errors import CarrelError
from carrel_gateway.settings import Settings
from carrel_gateway.storage.cloud_objects import RETRIES, CloudObjects, client_options

_EMULATOR: Final = {
    "AccountName": "devstoreaccount1",
    # Published by Microsoft for its emulator; it opens nothing else.
    "AccountKey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "BlobEndpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


class ConnectionStringUnusable(CarrelError):
    """A connection string lacks something, or is none; the message never holds any of it."""

    code = "connection_string_unusable"


class AzureObjects(CloudObjects):
    """One container."""

    def __init__(self, settings: Settings) -> None:
        """Open the container.

        Raises
        ------
        ConnectionStringUnusable
            The connection string lacks something, or is none.
        """
        given = settings.azure_connection_string
        parts = parsed(given.get_secret_value() if given else "")
        store = _store(settings, parts, parts["BlobEndpoint"])
        super().__init__(store, _store(settings, parts, settings.azure_public_endpoint or parts["BlobEndpoint"]))


def parsed(text: str) -> dict[str, str]:
    """Return the parts of a connection string, the address of the blobs among them.

    Raises
    ------
    ConnectionStringUnusable
        It lacks something, or is none.
    """
    parts: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, found, value = part.partition("=")
        if not found:
            raise _unusable("must be parts `Name=value`, separated by semicolons")
        parts[name] = value
    if parts.get("UseDevelopmentStorage", "").lower() == "true":
        parts = {**_EMULATOR, **parts}
    if "SharedAccessSignature" in parts:
        raise _unusable("has a SharedAccessSignature, which cannot sign addresses: use the one with the account key")
    if not parts.get("AccountName"):
        raise _unusable("has no AccountName")
    return {"BlobEndpoint": _endpoint(parts), **parts}


def _endpoint(parts: Mapping[str, str]) -> str:
    scheme = parts.get("DefaultEndpointsProtocol", "https")
    endpoint = f"{scheme}://{parts['AccountName']}.blob.{parts.get('EndpointSuffix', 'core.windows.net')}"
    chosen = parts.get("BlobEndpoint", endpoint)
    if urlsplit(chosen).scheme not in {"http", "https"}:
        raise _unusable("has an endpoint that is no http or https address")
    return chosen


def _store(settings: Settings, parts: Mapping[str, str], endpoint: str) -> AzureStore:
    options: dict[str, Any] = {"account_name": parts["AccountName"], "endpoint": endpoint.rstrip("/")}
    if parts.get("AccountKey"):
        options["account_key"] = parts["AccountKey"]
    try:
        return AzureStore(
            settings.azure_container, **options, client_options=client_options(endpoint), retry_config=RETRIES
        )
    except BaseError as error:  # its text may hold the key
        raise _unusable("has an account key that is none") from error


def _unusable(reason: str) -> ConnectionStringUnusable:
    return ConnectionStringUnusable(f"CARREL_AZURE_CONNECTION_STRING {reason}")
