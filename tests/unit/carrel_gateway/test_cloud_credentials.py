"""What object stores of clouds are opened with.

Plan: connection strings as Azure shows them become account, key and address; what cannot be used is refused at the
start, in words that hold no secret; so is a file of Google credentials that is none; each store names what it needs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from carrel_gateway.settings import Settings
from carrel_gateway.sources.reading import InvalidSettings
from carrel_gateway.storage.azure_objects import AzureObjects, ConnectionStringUnusable, parsed
from carrel_gateway.storage.gcs_objects import CredentialsUnusable, GcsObjects


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("AccountName=a;AccountKey=aw==", "https://a.blob.core.windows.net"),
        ("DefaultEndpointsProtocol=http;AccountName=a;EndpointSuffix=example.org;", "http://a.blob.example.org"),
        ("AccountName=a; BlobEndpoint=https://blobs.example.org/a", "https://blobs.example.org/a"),
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1"),
    ],
)
def test_connection_strings_are_read(text: str, endpoint: str) -> None:
    parts = parsed(text)
    assert parts["BlobEndpoint"] == endpoint
    assert parts["AccountName"] in {"a", "devstoreaccount1"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no AccountName"),
        ("AccountKey=c2VjcmV0", "has no AccountName"),
        ("secret", "must be parts"),
        ("AccountName=a;SharedAccessSignature=sig=secret", "has a SharedAccessSignature"),
        ("AccountName=a;BlobEndpoint=ftp://secret", "no http or https address"),
        ("AccountName=a;AccountKey=not base64, a secret", "has an account key that is none"),
    ],
)
def test_what_cannot_be_used_is_refused_without_its_secrets(tmp_path: Path, text: str, reason: str) -> None:
    settings = Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        data_dir=tmp_path,
        storage_type="azure",
        azure_container="files",
        azure_connection_string=text or "X=",
    )
    with pytest.raises(ConnectionStringUnusable, match=reason) as caught:
        AzureObjects(settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("secret", "holds no Google credentials"),
        ("[]", "holds no Google credentials"),
        ('{"type": "service_account", "private_key": "secret"}', "is no key of a Google service account"),
    ],
)
def test_google_credentials_that_are_none(tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "account.json"
    if content is not None:
        file.write_text(content, "utf-8")
    settings = Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        data_dir=tmp_path,
        storage_type="gcs",
        gcs_bucket="files",
        google_application_credentials=file,
    )
    with pytest.raises(CredentialsUnusable, match=reason) as caught:
        GcsObjects(settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("kind", "needed"), [("s3", "S3_BUCKET"), ("gcs", "GCS_BUCKET"), ("azure", "AZURE_CONTAINER")])
def test_a_store_names_what_it_needs(kind: str, needed: str) -> None:
    with pytest.raises(InvalidSettings, match=f"CARREL_{needed} must be set"):
        Settings(_env_file=None, storage_type=kind)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_the_names_of_the_source_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "DSAGENT_STORAGE_TYPE": "gcs",
        "DSAGENT_GCS_BUCKET": "b",
        "DSAGENT_GCS_PROJECT": "p",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path),
        "DSAGENT_AZURE_CONTAINER": "c",
        "DSAGENT_AZURE_CONNECTION_STRING": "AccountName=a",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)  # pyright: ignore[reportCallIssue]
    assert (settings.storage_type, settings.gcs_bucket, settings.gcs_project) == ("gcs", "b", "p")
    assert (settings.google_application_credentials, settings.azure_container) == (tmp_path, "c")
    assert settings.azure_connection_string is not None
    assert settings.azure_connection_string.get_secret_value() == "AccountName=a"
