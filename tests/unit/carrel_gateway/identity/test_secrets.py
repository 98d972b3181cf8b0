"""The master keys.

Plan: made once with mode 0600 and kept; settings go first; what cannot be used is refused with words and without the
key; uses are apart from each other; what is sealed opens again also when a newer key signs, and nowhere else.
"""

from __future__ import annotations

import base64
import stat
from string import ascii_letters

import pytest

from carrel_gateway.identity.secrets import (
    KEY_FILE,
    MasterKey,
    MasterKeys,
    SecretKeysUnusable,
    Unsealable,
    load_master_keys,
)
from carrel_gateway.settings import Settings

ONE = base64.b64encode(bytes(range(32))).decode()
TWO = base64.urlsafe_b64encode(b"\xff" * 32).decode()


def settings(tmp_path, **named):
    return Settings(_env_file=None, **{"data_dir": tmp_path, **named})


def test_made_once_and_private(tmp_path):
    made = load_master_keys(settings(tmp_path / "new")).newest
    assert load_master_keys(settings(tmp_path / "new")).newest == made
    assert len(made.key) == 32
    assert stat.S_IMODE((tmp_path / "new" / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new" / KEY_FILE).parent.stat().st_mode) == 0o700
    assert load_master_keys(settings(tmp_path / "other")).newest != made


def test_settings_go_first(tmp_path):
    keys = load_master_keys(settings(tmp_path, secret_keys=f"new:{TWO}, old:{ONE}"))
    assert keys.newest == MasterKey("new", b"\xff" * 32)
    assert [key.kid for key in keys] == ["new", "old"]
    assert not (tmp_path / KEY_FILE).exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (" , ", "names no key"),
        (ONE, "has no id"),
        (f"../k:{ONE}", "has no id"),
        (f"{'k' * 33}:{ONE}", "has no id"),
        (f"k:{ONE[:-4]}", "the key `k` of CARREL_SECRET_KEYS is not the base64 of 32 bytes"),
        (f"k:{ONE}AAAA", "is not the base64 of 32 bytes"),
        ("k:ключ", "is not the base64 of 32 bytes"),
        (f"k:{ONE},k:{TWO}", "names a key twice"),
    ],
)
def test_what_cannot_be_used(tmp_path, value, says):
    with pytest.raises(SecretKeysUnusable, match=says) as caught:
        load_master_keys(settings(tmp_path, secret_keys=value))
    assert ONE[:20] not in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / KEY_FILE).mkdir(parents=True)
    with pytest.raises(SecretKeysUnusable, match="cannot use the key file"):
        load_master_keys(settings(tmp_path))


def test_uses_and_keys_are_apart():
    one, two = MasterKey("a", bytes(32)), MasterKey("b", b"1" * 32)
    derived = {one.derive("cookies"), one.derive("tokens"), two.derive("cookies"), two.derive("tokens"), one.key}
    assert len(derived) == 5
    assert one.derive("cookies") == MasterKey("other name", bytes(32)).derive("cookies")
    assert "\\x00" not in repr(one)


def test_what_is_sealed_opens_there_and_nowhere_else():
    old, new = MasterKey("old", bytes(32)), MasterKey("new", b"1" * 32)
    before, after = MasterKeys([old]), MasterKeys([new, old])
    sealed = before.seal("provider-keys", b"sk-1", bound_to="tenant/row")
    assert "sk-1" not in sealed
    assert sealed != before.seal("provider-keys", b"sk-1", bound_to="tenant/row")
    assert after.unseal("provider-keys", sealed, bound_to="tenant/row") == b"sk-1"
    assert (before.sealed_by_newest(sealed), after.sealed_by_newest(sealed)) == (True, False)
    for use, bound_to in [("cookies", "tenant/row"), ("provider-keys", "other/row")]:
        with pytest.raises(Unsealable, match="for something else"):
            after.unseal(use, sealed, bound_to=bound_to)
    with pytest.raises(Unsealable, match="by a key that"):
        MasterKeys([new]).unseal("provider-keys", sealed, bound_to="tenant/row")


def test_every_changed_character_is_seen():
    keys = MasterKeys([MasterKey("k", bytes(32))])
    sealed = keys.seal("use", b"plain text", bound_to="")
    for place in range(2, len(sealed)):
        for character in f"{ascii_letters}0123456789-_=.\u00e9":
            changed = sealed[:place] + character + sealed[place + 1 :]
            if changed != sealed:
                with pytest.raises(Unsealable):
                    keys.unseal("use", changed, bound_to="")
    for short in ("k.", "k", "", "k.AAAA", "k." + "A" * 16):
        with pytest.raises(Unsealable):
            keys.unseal("use", short, bound_to="")


def test_a_cluster_shares_no_folder_and_needs_the_setting(tmp_path):
    cluster = {"executor_type": "kubernetes", "kernel_private_key_file": tmp_path / "key.pem"}
    with pytest.raises(SecretKeysUnusable, match="CARREL_SECRET_KEYS must be set"):
        load_master_keys(settings(tmp_path, **cluster))
    assert load_master_keys(settings(tmp_path, secret_keys=f"a:{ONE}", **cluster)).newest.kid == "a"
