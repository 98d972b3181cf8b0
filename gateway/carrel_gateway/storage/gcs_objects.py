"""The object store on Google Cloud Storage.

Without a file of credentials the platform's own identity is used (workload identity); it then signs addresses by
asking Google to, which its account must be allowed (`iam.serviceAccounts.signBlob`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import GCSStore

from carrel_gateway.errors import CarrelError
from carrel_gateway.settings import Settings
from carrel_gateway.storage.cloud_objects import RETRIES, CloudObjects, client_options


class CredentialsUnusable(CarrelError):
    """A file of credentials cannot be read, or is none."""

    code = "credentials_unusable"


class GcsObjects(CloudObjects):
    """One bucket."""

    def __init__(self, settings: Settings) -> None:
        """Open the bucket.

        Raises
        ------
        CredentialsUnusable
            The file of credentials cannot be read, or is none.
        """
        store = _store(settings, settings.gcs_endpoint)
        # obstore signs for storage.googleapis.com whatever the endpoint is, so that is where addresses lead by default.
        super().__init__(store, _store(settings, settings.gcs_public_endpoint))


def _store(settings: Settings, endpoint: str | None) -> GCSStore:
    options: dict[str, Any] = {}
    path = settings.google_application_credentials
    if path:
        kind, text = _credentials(path)
        # An account's own key can sign; other kinds (a person's login) are read by the library.
        options |= {"service_account_key": text} if kind == "service_account" else {"application_credentials": path}
    if endpoint:
        options["base_url"] = endpoint
    try:
        return GCSStore(settings.gcs_bucket, **options, client_options=client_options(endpoint), retry_config=RETRIES)
    except BaseError as error:  # its text may hold the key
        raise CredentialsUnusable(_unusable(path, "is no key of a Google service account")) from error


def _credentials(path: Path) -> tuple[str, str]:
    """Return what kind of credentials a file holds, and its text."""
    try:
        text = path.read_text("utf-8")
        kind = json.loads(text)["type"]
    except OSError as error:
        raise CredentialsUnusable(_unusable(path, f"cannot be read: {error.strerror}")) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CredentialsUnusable(_unusable(path, "holds no Google credentials")) from error
    return str(kind), text


def _unusable(path: Path | None, reason: str) -> str:
    return f"the file {path} {reason}; set GOOGLE_APPLICATION_CREDENTIALS to one that holds a service account's key"
