"""The key of the installation.

Plan: made once with mode 0600 and kept; settings go first; another one does not match; with Postgres there is no file;
an unusable file is a clear error.
"""

from __future__ import annotations

import stat

import pytest
from pydantic import SecretStr

from carrel_gateway.identity.keys import InstallationKey, KeyFileUnusable, installation_key
from carrel_gateway.identity.presented import digest_of
from carrel_gateway.settings import Settings


def test_made_once_and_private(tmp_path):
    settings = Settings(data_dir=tmp_path / "new", api_key=None)
    key = installation_key(settings)
    assert key.startswith("crl_")
    assert len(key) > 40
    assert installation_key(settings) == key
    assert stat.S_IMODE((tmp_path / "new" / "key").stat().st_mode) == 0o600


def test_settings_go_first(tmp_path):
    assert installation_key(Settings(data_dir=tmp_path, api_key="mine")) == "mine"
    assert not (tmp_path / "key").exists()


def test_empty_file(tmp_path):
    (tmp_path / "key").write_text("\n")
    with pytest.raises(KeyFileUnusable, match="is empty; delete it and start again"):
        installation_key(Settings(data_dir=tmp_path))


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "key").mkdir()
    with pytest.raises(KeyFileUnusable, match="cannot use the key file"):
        installation_key(Settings(data_dir=tmp_path))


def test_another_key_does_not_match():
    key = InstallationKey("right")
    assert key.matches(digest_of("right"))
    for wrong in ("", "Right", "right ", "x" * 10_000, "ключ", "\udcff"):
        assert not key.matches(digest_of(wrong))


def test_with_postgres_there_is_none_but_the_settings_one(tmp_path):
    settings = Settings(_env_file=None, data_dir=tmp_path, database_url="postgresql://nobody@nowhere/x")
    assert installation_key(settings) is None
    assert not (tmp_path / "key").exists()
    named = settings.model_copy(update={"api_key": SecretStr("mine")})
    assert installation_key(named) == "mine"
