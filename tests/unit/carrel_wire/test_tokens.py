"""Tokens of the calls to a kernel host: the right one is let in, and no other.

Plan
- What a signer makes is what a verifier grants, never more than the key's ceiling; reused until near its end.
- A corpus of forgeries: each is the good token with one thing changed, made without PyJWT where PyJWT would refuse to
  make it. The good token is verified beside them, so that a verifier that refuses everything fails too.
- Any one character changed, anything cut off or put in, and any text at all: refused by `TokenError` and nothing else.
- A refusal names no secret: neither token nor key, nor what the claims say.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_wire.tokens import (
    ALL_SCOPES,
    LEEWAY_SECONDS,
    LIFETIME_SECONDS,
    MAX_TOKEN_LENGTH,
    Grant,
    KeySet,
    PublicKey,
    Signer,
    TokenError,
    Verifier,
    generate_private_key,
    public_key_of,
)

PRIVATE = generate_private_key()
PUBLIC = public_key_of(PRIVATE)
OTHER = generate_private_key()
LIMITED = generate_private_key()
HOST, SESSION = "host-uid", "session-uid"
VERIFIER = Verifier(
    HOST,
    KeySet(
        keys=[
            PublicKey("gateway-1", PUBLIC, sorted(ALL_SCOPES)),
            PublicKey("operator-1", public_key_of(LIMITED), ["bind", "state", "no-such-scope"]),
        ]
    ),
)
_LOADED = serialization.load_pem_public_key(PUBLIC.encode())
DER = _LOADED.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
RAW = _LOADED.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
GONE = object()
"""The claim is left out."""


def encoded(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    fields = {"iss": "gateway-1", "aud": HOST, "iat": now, "nbf": now, "exp": now + LIFETIME_SECONDS}
    fields |= {"scopes": sorted(ALL_SCOPES), "session": SESSION, **changed}
    return {name: value for name, value in fields.items() if value is not GONE}


def signed(
    payload: dict[str, Any] | bytes, *, key: str = PRIVATE, alg: Any = "EdDSA", kid: Any = "gateway-1", **header: Any
) -> str:
    """Return a token signed with Ed25519 whatever its header says."""
    head = {"typ": "JWT", "alg": alg, "kid": kid, **header}
    text = f"{encoded({name: value for name, value in head.items() if value is not GONE})}.{encoded(payload)}"
    private = serialization.load_pem_private_key(key.encode(), password=None)
    return f"{text}.{encoded(private.sign(text.encode()))}"  # type: ignore[call-arg,union-attr]


def by_secret(secret: bytes, alg: str = "HS256") -> str:
    text = f"{encoded({'typ': 'JWT', 'alg': alg, 'kid': 'gateway-1'})}.{encoded(claims())}"
    kind = hashlib.sha512 if alg == "HS512" else hashlib.sha256
    return f"{text}.{encoded(hmac.new(secret, text.encode(), kind).digest())}"


def by_other_algorithm() -> str:
    return jwt.encode(claims(), generate_ec_key(SECP256R1()), "ES256", headers={"kid": "gateway-1"})


def altered(**changed: Any) -> str:
    """Return a good token's header and signature around other claims."""
    head, _, signature = good().split(".")
    return f"{head}.{encoded(claims(**changed))}.{signature}"


def good() -> str:
    return signed(claims())


def parts() -> tuple[str, str, str]:
    head, body, signature = good().split(".")
    return head, body, signature


def with_signature(change: Callable[[str], str]) -> str:
    head, body, signature = parts()
    return f"{head}.{body}.{change(signature)}"


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
JWK = {"kty": "OKP", "crv": "Ed25519", "x": encoded(b"\x01" * 32)}
FORGERIES: dict[str, Callable[[], str]] = {
    # algorithm
    "none": lambda: signed(claims(), alg="none"),
    "none, unsigned": lambda: ".".join([encoded({"alg": "none", "kid": "gateway-1"}), encoded(claims()), ""]),
    "None in other letters": lambda: ".".join([encoded({"alg": "nOnE", "kid": "gateway-1"}), encoded(claims()), ""]),
    "no algorithm": lambda: signed(claims(), alg=GONE),
    "a list of algorithms": lambda: signed(claims(), alg=["EdDSA"]),
    "HS256 says the header": lambda: signed(claims(), alg="HS256"),
    "the public key as secret, PEM": lambda: by_secret(PUBLIC.encode()),
    "the public key as secret, PEM without its end": lambda: by_secret(PUBLIC.strip().encode()),
    "the public key as secret, DER": lambda: by_secret(DER),
    "the public key as secret, raw": lambda: by_secret(RAW),
    "the public key as secret, said to be EdDSA": lambda: by_secret(DER, "EdDSA"),
    # as long as a signature of Ed25519, so that not the form alone refuses them
    "the public key as secret, PEM, HS512": lambda: by_secret(PUBLIC.encode(), "HS512"),
    "the public key as secret, DER, HS512": lambda: by_secret(DER, "HS512"),
    "the public key as secret, raw, HS512": lambda: by_secret(RAW, "HS512"),
    "an empty secret": lambda: by_secret(b"", "HS512"),
    "ES256": by_other_algorithm,
    # key
    "another key": lambda: signed(claims(), key=OTHER),
    "another key, embedded": lambda: signed(claims(), key=OTHER, jwk=JWK),
    "another key, by address": lambda: signed(claims(), key=OTHER, jku="https://203.0.113.1/keys.json"),
    "another certificate, by address": lambda: signed(claims(), key=OTHER, x5u="https://203.0.113.1/cert.pem"),
    "another certificate, embedded": lambda: signed(claims(), key=OTHER, x5c=[encoded(DER)]),
    "another key of the key set": lambda: signed(claims(), key=LIMITED),
    "another key's issuer": lambda: signed(claims(), key=LIMITED, kid="operator-1"),
    "an unknown key id": lambda: signed(claims(), kid="gateway-2"),
    "no key id": lambda: signed(claims(), kid=GONE),
    "a key id that is a path": lambda: signed(claims(), kid="../../dev/null"),
    "a key id that is a number": lambda: signed(claims(), kid=1),
    "a key id that is a list": lambda: signed(claims(), kid=["gateway-1"]),
    "critical extensions": lambda: signed(claims(), crit=["b64"], b64=False),
    # claims under a signature of other ones
    "altered end": lambda: altered(exp=int(time.time()) + 200),
    "altered audience": lambda: altered(aud="elsewhere"),
    "altered scopes": lambda: altered(scopes=["bind"]),
    "altered session": lambda: altered(session="someone"),
    "no session any more": lambda: altered(session=GONE),
    "altered issuer": lambda: altered(iss="operator-1"),
    "another token's signature": lambda: f"{'.'.join(parts()[:2])}.{signed(claims(jti='2')).split('.')[2]}",
    # claims that the signature covers, and that are no good
    "for another host": lambda: signed(claims(aud="elsewhere")),
    "for several hosts": lambda: signed(claims(aud=[HOST, "elsewhere"])),
    "for no host": lambda: signed(claims(aud=GONE)),
    "expired": lambda: signed(claims(exp=int(time.time()) - LEEWAY_SECONDS - 1)),
    "without an end": lambda: signed(claims(exp=GONE)),
    "an end that is a text": lambda: signed(claims(exp=str(int(time.time()) + 100))),
    "an end that is infinite": lambda: signed(claims(exp=float("inf"))),
    "an end that is no number": lambda: signed(claims(exp=float("nan"))),
    "not yet valid": lambda: signed(claims(nbf=int(time.time()) + LEEWAY_SECONDS + 60)),
    "made in the future": lambda: signed(claims(iat=int(time.time()) + LEEWAY_SECONDS + 60)),
    "without a beginning": lambda: signed(claims(nbf=GONE)),
    "without a birth": lambda: signed(claims(iat=GONE)),
    "a birth that is a truth": lambda: signed(claims(iat=True)),
    "too long a life": lambda: signed(claims(exp=int(time.time()) + LIFETIME_SECONDS + 1)),
    "without an issuer": lambda: signed(claims(iss=GONE)),
    "scopes that are a text": lambda: signed(claims(scopes="execute")),
    "scopes of the wrong type": lambda: signed(claims(scopes=[["execute"], 1])),
    "without scopes": lambda: signed(claims(scopes=GONE)),
    "a session that is a number": lambda: signed(claims(session=5)),
    "claims that are a list": lambda: signed(b"[]"),
    "claims that are no JSON": lambda: signed(b"{"),
    "claims that are no Unicode": lambda: signed(b"\xff\xfe"),
    "claims that nest": lambda: signed(b"[" * 2500),
    # form
    "empty": lambda: "",
    "dots": lambda: "..",
    "two parts": lambda: ".".join(parts()[:2]),
    "four parts": lambda: good() + ".e30",
    "a dot twice": lambda: good().replace(".", "..", 1),
    "a dot at the end": lambda: good() + ".",
    "a dot at the beginning": lambda: "." + good(),
    "without signature": lambda: ".".join(parts()[:2]) + ".",
    "half a signature": lambda: with_signature(lambda text: text[:43]),
    "padding": lambda: good() + "==",
    "unused bits set": lambda: with_signature(lambda text: text[:-1] + ALPHABET[ALPHABET.index(text[-1]) + 1]),
    "standard base64": lambda: with_signature(lambda text: "+/" + text[2:]),
    "a space in it": lambda: with_signature(lambda text: f"{text[:9]} {text[9:]}"),
    "a line end in it": lambda: with_signature(lambda text: f"{text[:9]}\n{text[9:]}"),
    "a line end behind it": lambda: good() + "\n",
    "characters that base64 skips": lambda: with_signature(lambda text: f"{text[:9]}!{text[9:]}"),
    "other letters for the same": lambda: good().replace(".", "\u3002", 1),
    "not ASCII": lambda: "é.é.é",
    "no Unicode": lambda: "\udcff." + good(),
    "a header that is a list": lambda: f"{encoded(b'[]')}.{encoded(claims())}.{parts()[2]}",
    "a header that nests": lambda: f"{encoded(b'[' * 2500)}.e30.{parts()[2]}",
    "too long": lambda: signed(claims(padding="x" * MAX_TOKEN_LENGTH)),
}


def test_the_right_token_is_let_in() -> None:
    expected = Grant(kid="gateway-1", audience=HOST, scopes=ALL_SCOPES, session_uid=SESSION)
    assert VERIFIER.verify(good()) == expected
    token = Signer("gateway-1", PRIVATE).token(audience=HOST, session_uid=SESSION, scopes=ALL_SCOPES)
    assert VERIFIER.verify(token) == expected


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_token_is_refused_and_the_refusal_names_no_secret(kind: str) -> None:
    token = FORGERIES[kind]()
    with pytest.raises(TokenError) as refused:
        VERIFIER.verify(token)
    said = str(refused.value)
    assert 0 < len(said) < 60
    for secret in (*token.split("."), PUBLIC, SESSION, HOST, "elsewhere", "someone", "execute"):
        assert len(secret) < 3 or secret not in said


def test_a_session_is_what_the_token_says_and_no_other() -> None:
    signer = Signer("gateway-1", PRIVATE)
    for session in ("another", None):
        assert VERIFIER.verify(signer.token(audience=HOST, session_uid=session, scopes=[])).session_uid == session


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.characters(codec="utf-8"))
def test_a_changed_character_is_refused(place: int, character: str) -> None:
    token = good()
    place %= len(token)
    if token[place] == character:
        return
    with pytest.raises(TokenError):
        VERIFIER.verify(token[:place] + character + token[place + 1 :])


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.text(max_size=5))
def test_what_is_cut_or_put_in_is_refused(start: int, length: int, text: str) -> None:
    token = good()
    start %= len(token) + 1
    changed = token[:start] + text + token[start + length % 5 :]
    if changed == token:
        return
    with pytest.raises(TokenError):
        VERIFIER.verify(changed)


@settings(max_examples=200)
@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{85}[AQgw]")))
def test_any_text_is_refused_and_harms_nobody(text: str) -> None:
    with pytest.raises(TokenError):
        VERIFIER.verify(text)


@given(st.sets(st.sampled_from([*sorted(ALL_SCOPES), "no-such-scope", "admin"])))
def test_a_key_grants_its_own_scopes_at_most(scopes: set[str]) -> None:
    token = Signer("operator-1", LIMITED).token(audience=HOST, session_uid=None, scopes=scopes)
    assert VERIFIER.verify(token).scopes == scopes & {"bind", "state"}


def test_a_token_is_reused_until_a_minute_before_its_end() -> None:
    signer = Signer("gateway-1", PRIVATE)

    def token(audience: str = HOST) -> str:
        return signer.token(audience=audience, session_uid=SESSION, scopes=["state"])

    with time_machine.travel(1_800_000_000, tick=False) as clock:
        first = token()
        assert token() == first
        assert token("other") != first
        clock.shift(LIFETIME_SECONDS - 61)
        assert token() == first
        clock.shift(2)
        second = token()
        assert second != first
        assert VERIFIER.verify(first)
        clock.shift(59 + LEEWAY_SECONDS)
        with pytest.raises(TokenError, match="expired"):
            VERIFIER.verify(first)
        assert VERIFIER.verify(second)


def test_a_signer_forgets_the_oldest_rather_than_growing() -> None:
    signer = Signer("gateway-1", PRIVATE)
    for number in range(10_002):
        signer.token(audience=str(number), session_uid=None, scopes=[])
    assert len(signer._made) < 10_002


def test_only_ed25519_keys_are_taken() -> None:
    key = generate_ec_key(SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = public_key_of(private)
    with pytest.raises(TypeError, match="Ed25519") as refused:
        Signer("gateway-1", private)
    assert "BEGIN" not in str(refused.value)
    with pytest.raises(TypeError, match="Ed25519"):
        Verifier(HOST, KeySet(keys=[PublicKey("gateway-1", public, [])]))
    with pytest.raises(ValueError, match="PEM"):
        Verifier(HOST, KeySet(keys=[PublicKey("gateway-1", "no key", [])]))
