"""Who may call: header, key set and scope, one by one.

Plan
- The `Authorization` header in the forms that clients send, and those that are none.
- Scope and session against a table of all of them.
- The key set: rotated, broken, gone, replaced by a link as a ConfigMap volume does; a good token is not good for ever.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import msgspec
import pytest

from carrel_kernel import auth as module
from carrel_kernel.auth import KeyFile, authenticate, authorize
from carrel_kernel.errors import ScopeMissing, Unauthenticated, WrongSession
from carrel_wire.tokens import (
    ALL_SCOPES,
    Grant,
    KeySet,
    PublicKey,
    Signer,
    TokenError,
    generate_private_key,
    public_key_of,
)

PRIVATE = {kid: generate_private_key() for kid in ("old", "new")}
PUBLIC = {kid: PublicKey(kid, public_key_of(pem), sorted(ALL_SCOPES)) for kid, pem in PRIVATE.items()}


def token(kid: str = "old") -> str:
    return Signer(kid, PRIVATE[kid]).token(audience="host", session_uid="s", scopes=["state"])


def write(path: Path, *kids: str) -> None:
    new = path.with_suffix(".tmp")
    new.write_bytes(msgspec.json.encode(KeySet(keys=[PUBLIC[kid] for kid in kids])))
    new.replace(path)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    write(tmp_path / "keys.json", "old")
    found = KeyFile(tmp_path / "keys.json", "host")
    found.load()
    return found


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {} "])
def test_a_bearer_token_is_read(keys: KeyFile, form: str) -> None:
    assert authenticate(form.format(token()), keys).session_uid == "s"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer{}", "Bearer {} {}", "Bearer \udcff", "Token {}"]
)
def test_anything_else_is_refused(keys: KeyFile, header: str | None) -> None:
    sent = header.format(token(), token()) if header else header
    with pytest.raises(Unauthenticated) as refused:
        authenticate(sent, keys)
    assert token() not in str(refused.value)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("scope", "granted", "session", "bound"),
    list(itertools.product([*sorted(ALL_SCOPES), "unknown"], [True, False], ["s", "other", None], ["s", None])),
)
def test_scope_and_session(scope: str, granted: bool, session: str | None, bound: str | None) -> None:
    grant = Grant("k", "host", frozenset({scope} if granted else ALL_SCOPES - {scope}), session)
    if not granted or scope == "unknown":
        with pytest.raises(ScopeMissing):
            authorize(grant, scope, bound)
    elif bound == "s" and (session == "other" or (session is None and scope in ("execute", "files"))):
        with pytest.raises(WrongSession):
            authorize(grant, scope, bound)
    else:
        authorize(grant, scope, bound)


def test_keys_rotate(keys: KeyFile, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert keys.verify(token())
    with pytest.raises(TokenError):
        keys.verify(token("new"))
    write(path, "old", "new")
    assert keys.verify(token("new"))
    assert keys.verify(token())
    write(path, "new")
    with pytest.raises(TokenError):
        keys.verify(token())


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"keys": [{"kid": "old", "pem": "x", "scopes": []}]}', None]
)
def test_a_broken_key_set_leaves_the_last_good_one(keys: KeyFile, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for _ in range(2):
        assert keys.verify(token())
        with pytest.raises(TokenError):
            keys.verify(token("new"))
    write(path, "new")
    assert keys.verify(token("new"))


def test_a_link_that_is_swapped_is_followed(tmp_path: Path) -> None:
    for kid in ("old", "new"):
        (tmp_path / kid).mkdir()
        write(tmp_path / kid / "keys.json", kid)
    (tmp_path / "data").symlink_to("old")
    keys = KeyFile(tmp_path / "data" / "keys.json", "host")
    keys.load()
    assert keys.verify(token())
    (tmp_path / "next").symlink_to("new")
    os.replace(tmp_path / "next", tmp_path / "data")  # noqa: PTH105  the link itself is replaced
    assert keys.verify(token("new"))


def test_a_host_does_not_start_without_a_key_set(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        KeyFile(tmp_path / "none", "host").load()
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(msgspec.ValidationError):
        KeyFile(tmp_path / "keys.json", "host").load()


def test_a_good_token_is_checked_again_after_a_while(keys: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    checked = 0
    verify = module.Verifier.verify

    def counted(self: module.Verifier, text: str) -> Grant:
        nonlocal checked
        checked += 1
        return verify(self, text)

    monkeypatch.setattr(module.Verifier, "verify", counted)
    sent = token()
    for seconds, expected in ((0, 1), (4.9, 1), (0.2, 2), (0, 2)):
        now += seconds
        keys.verify(sent)
        assert checked == expected
    for _ in range(300):
        keys.verify(Signer("old", PRIVATE["old"]).token(audience="host", session_uid=str(checked), scopes=[]))
    assert len(keys._good) <= 100
