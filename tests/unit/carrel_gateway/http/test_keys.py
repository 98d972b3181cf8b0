"""The API key.

Plan: made once with mode 0600 and kept; settings go first; no key and a wrong key are told apart; header and
subprotocol forms; an unusable file is a clear error.
"""

from __future__ import annotations

import stat

import pytest

from carrel_gateway.errors import Unauthenticated
from carrel_gateway.identity.keys import ApiKey, KeyFileUnusable, bearer, from_subprotocols, installation_key
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


def test_verify():
    key = ApiKey("right")
    key.verify("right")
    for missing in (None, ""):
        with pytest.raises(Unauthenticated) as caught:
            key.verify(missing)
        assert caught.value.code == "unauthenticated"
    for wrong in ("Right", "right ", "x" * 10_000, "ключ", "\udcff"):
        with pytest.raises(Unauthenticated) as caught:
            key.verify(wrong)
        assert caught.value.code == "wrong_key"
        assert wrong not in caught.value.message


@pytest.mark.parametrize(
    ("header", "key"),
    [(None, None), ("", None), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None)],
)
def test_bearer(header, key):
    assert bearer(header) == key


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (None, None)),
        ("carrel.v1, carrel.key.abc", ("abc", "carrel.v1")),
        ("carrel.key.abc", ("abc", "carrel.key.abc")),
        ("chat", (None, "chat")),
    ],
)
def test_subprotocols(header, expected):
    assert from_subprotocols(header) == expected
