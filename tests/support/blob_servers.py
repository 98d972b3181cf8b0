"""Fixtures of object stores that speak as Azure and Google Cloud Storage do.

Azure has an emulator, which checks signatures and their expiry. Google has none that knows the XML interface which
obstore speaks: `gcs_over_s3` puts that interface before the S3 of the tests.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.gcs_over_s3 import GcsOverS3
from tests.support.servers import ObjectStore, free_port, listens, spawn, stop, wait_for
from tools.go_tools import ToolError
from tools.node_tools import ensure

ACCOUNT: Final = "devstoreaccount1"
# Published by Microsoft for its emulator; it opens nothing else.
ACCOUNT_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER: Final = "carrel"


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The settings of an object store on Azure."""
    try:
        command = ensure("azurite")
    except ToolError as error:
        pytest.skip(str(error))
    port = free_port()
    quiet = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
    process = spawn([*command, "--blobPort", str(port), *quiet], cwd=tmp_path_factory.mktemp("azurite"))
    try:
        wait_for(lambda: listens(port), process)
        _make_container(port)
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        yield {
            "storage_type": "azure",
            "azure_container": CONTAINER,
            "azure_connection_string": f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint};",
        }
    finally:
        stop(process)


def _make_container(port: int) -> None:
    """Make the container, with a request that is signed by hand (Shared Key)."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    text = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}", "restype:container"])
    mac = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256)).decode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{mac}"
        connection.request("PUT", f"/{ACCOUNT}/{CONTAINER}?restype=container", headers=headers)
        answer = connection.getresponse()
        if answer.status != 201:
            raise RuntimeError(f"no container was made: {answer.status} {answer.read()!r}")


@pytest.fixture(scope="session")
def gcs(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The settings of an object store on Google Cloud Storage."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with GcsOverS3(object_store, key.public_key()) as endpoint:
        file = tmp_path_factory.mktemp("gcs") / "account.json"
        _write_account(file, key, endpoint)
        yield {
            "storage_type": "gcs",
            "gcs_bucket": object_store.bucket,
            "google_application_credentials": file,
            "gcs_endpoint": endpoint,
            "gcs_public_endpoint": endpoint,
        }


def _write_account(file: Path, key: rsa.RSAPrivateKey, endpoint: str) -> None:
    """Write the key of a service account, as Google hands it out."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "carrel@tests.example.org",
        "token_uri": f"{endpoint}/token",
    }
    file.write_text(json.dumps(account), "utf-8")
