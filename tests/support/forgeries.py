"""Forged access tokens: what an attacker makes who has a good token and knows the public key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carrel_gateway.identity.secrets import MasterKey
from carrel_gateway.identity.tokens import USE

Forgery = tuple[str, str]
MISSING = object()


def encoded(value: Any) -> str:
    """Return JSON, or bytes, as a part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forger:
    """Makes tokens under the installation's key, or under none, at one moment (seconds of the epoch)."""

    def __init__(self, key: MasterKey, now: int) -> None:
        self.kid = key.kid
        self.now = now
        self.key = Ed25519PrivateKey.from_private_bytes(key.derive(USE))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return good claims with changes; `MISSING` takes one away."""
        now = self.now
        good = {
            "iss": "carrel",
            "aud": "carrel-api",
            "sub": str(uuid4()),
            "tenant": str(uuid4()),
            "login": str(uuid4()),
            "jti": str(uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 900,
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not MISSING}

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return a good header with changes."""
        good = {"alg": "EdDSA", "typ": "at+jwt", "kid": self.kid}
        return {name: value for name, value in {**good, **changes}.items() if value is not MISSING}

    def signed(self, header: Any, claims: Any, key: Ed25519PrivateKey | None = None) -> str:
        """Return a token whose signature is good for the key, whatever it says."""
        text = f"{encoded(header)}.{encoded(claims)}"
        return f"{text}.{encoded((key or self.key).sign(text.encode()))}"

    def by_hmac(self, header: Any, claims: Any, secret: bytes, length: int = 32) -> str:
        """Return a token signed by HMAC; with `length` 64 its signature is as long as one of Ed25519."""
        text = f"{encoded(header)}.{encoded(claims)}"
        digest = hashlib.sha512 if length == 64 else hashlib.sha256
        return f"{text}.{encoded(hmac.new(secret, text.encode(), digest).digest())}"

    def all(self) -> Iterator[Forgery]:
        """Yield every forgery with its name."""
        yield from self._algorithms()
        yield from self._public_key_as_secret()
        yield from self._headers()
        yield from self._claims()
        yield from self._times()
        yield from self._forms()

    def _algorithms(self) -> Iterator[Forgery]:
        claims = self.claims()
        for name in ("none", "None", "NONE", "nOnE"):
            text = f"{encoded(self.header(alg=name))}.{encoded(claims)}"
            yield f"alg {name}, no signature", f"{text}."
            yield f"alg {name}, some signature", f"{text}.{encoded(bytes(64))}"
            yield f"alg {name}, a good signature", self.signed(self.header(alg=name), claims)
        for name in ("HS256", "HS512", "RS256", "ES256", "Ed25519", "Ed448", "eddsa", "", None, 7, ["EdDSA"]):
            yield f"alg {name!r} over a good signature", self.signed(self.header(alg=name), claims)
        yield "no alg", self.signed(self.header(alg=MISSING), claims)
        others: Mapping[str, Any] = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": Ed25519PrivateKey.generate(),
        }
        for name, key in others.items():
            headers = {"kid": self.kid, "typ": "at+jwt"}
            yield f"another key, {name}", jwt.encode(claims, key, name, headers=headers)

    def _public_key_as_secret(self) -> Iterator[Forgery]:
        public, formats, encodings = self.key.public_key(), serialization.PublicFormat, serialization.Encoding
        forms = {
            "DER": public.public_bytes(encodings.DER, formats.SubjectPublicKeyInfo),
            "PEM": public.public_bytes(encodings.PEM, formats.SubjectPublicKeyInfo),
            "raw": public.public_bytes(encodings.Raw, formats.Raw),
            "OpenSSH": public.public_bytes(encodings.OpenSSH, formats.OpenSSH),
        }
        for name, secret in forms.items():
            for algorithm, length in (("HS256", 32), ("HS512", 64), ("EdDSA", 64)):
                token = self.by_hmac(self.header(alg=algorithm), self.claims(), secret, length)
                yield f"public key as {name} for the secret of {algorithm}", token
        yield "empty secret", self.by_hmac(self.header(alg="HS512"), self.claims(), b"", 64)

    def _headers(self) -> Iterator[Forgery]:
        own = Ed25519PrivateKey.generate()
        raw = own.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": encoded(raw), "kid": self.kid}
        told: dict[str, dict[str, Any]] = {
            "jwk": {"jwk": jwk},
            "jku": {"jku": "http://127.0.0.1:9/keys"},
            "x5u": {"x5u": "http://127.0.0.1:9/certificate"},
            "x5c": {"x5c": ["MIIB"]},
            "crit": {"crit": ["exp"]},
            "b64": {"b64": False, "crit": ["b64"]},
            "zip": {"zip": "DEF"},
        }
        for name, more in told.items():
            yield f"{name} and its key", self.signed(self.header(**more), self.claims(), own)
            yield f"{name} over a good signature", self.signed(self.header(**more), self.claims())
        for kid in (
            "unknown",
            "",
            "../../../../dev/null",
            "keys/secret-keys",
            "k1' OR '1'='1",
            "k1\0",
            "K1",
            "\uff4b1",
            None,
            1,
            ["k1"],
            {"k1": 1},
        ):
            yield f"kid {kid!r}", self.signed(self.header(kid=kid), self.claims())
        yield "no kid", self.signed(self.header(kid=MISSING), self.claims())
        for kind in ("JWT", "id+jwt", "AT+JWT", "application/at+jwt", None, MISSING):
            yield (
                "without typ" if kind is MISSING else f"typ {kind!r}",
                self.signed(self.header(typ=kind), self.claims()),
            )

    def _claims(self) -> Iterator[Forgery]:
        for name in self.claims():
            yield f"without {name}", self.signed(self.header(), self.claims(**{name: MISSING}))
            yield f"{name} null", self.signed(self.header(), self.claims(**{name: None}))
            yield f"{name} a list", self.signed(self.header(), self.claims(**{name: [self.claims()[name]]}))
        for changes in (
            {"iss": "other"},
            {"iss": "Carrel"},
            {"iss": "carrel/"},
            {"aud": "carrel"},
            {"aud": ["carrel-api", "other"]},
            {"sub": "admin"},
            {"sub": ""},
            {"sub": 1},
            {"tenant": "*"},
            {"tenant": "' OR 1=1 --"},
            {"login": "../" * 12},
            {"jti": "\u202e"},
        ):
            yield f"{changes}", self.signed(self.header(), self.claims(**changes))

    def _times(self) -> Iterator[Forgery]:
        now = self.now
        for name, changes in {
            "expired": {"iat": now - 1000, "nbf": now - 1000, "exp": now - 100},
            "just expired": {"iat": now - 900, "nbf": now - 900, "exp": now},
            "not yet": {"nbf": now + 60},
            "made in the future": {"iat": now + 600, "nbf": now + 600, "exp": now + 900},
            "lives for ever": {"exp": 2**62},
            "lives for a day": {"exp": now + 86_400},
            "ends before it begins": {"exp": now - 1, "nbf": now},
            "exp as text": {"exp": str(now + 900)},
            "exp as a float": {"exp": now + 900.5},
            "exp not a number": {"exp": float("nan")},
            "exp infinite": {"exp": float("inf")},
            "exp true": {"exp": True},
            "exp negative": {"exp": -1},
            "valid before it was made": {"iat": now, "nbf": now - 600},
        }.items():
            yield name, self.signed(self.header(), self.claims(**changes))

    def _forms(self) -> Iterator[Forgery]:
        good = self.signed(self.header(), self.claims())
        header, claims, signature = good.split(".")
        yield from {
            "empty": "",
            "dots": "..",
            "no signature": f"{header}.{claims}.",
            "two parts": f"{header}.{claims}",
            "four parts": f"{good}.{signature}",
            "padding": f"{good}==",
            "a space": f" {good}",
            "a line break": f"{good}\n",
            "NUL": f"{good}\0",
            "a full stop of another script": good.replace(".", "\uff0e"),
            "letters of another script": good.replace("e", "\u0435"),
            "lone surrogate": good + "\udcff",
            "another way to write the signature": good[:-1] + chr(ord(good[-1]) + 1),
            "huge": self.signed(self.header(), self.claims(more="x" * 100_000)),
            "many dots": "." * 100_000,
            "claims that are a list": self.signed(self.header(), [self.claims()]),
            "claims that are text": self.signed(self.header(), "claims"),
            "claims that are no JSON": self.signed(self.header(), b"{"),
            "claims nested deeply": self.signed(self.header(), b"[" * 1000),
            "a header that is a list": self.signed([self.header()], self.claims()),
            "a header that is no JSON": self.signed(b"{", self.claims()),
            "a header that is not UTF-8": self.signed(b"\xff\xfe", self.claims()),
            "header and claims of two tokens": f"{header}.{encoded(self.claims())}.{signature}",
            "JWE": f"{header}.{claims}.{signature}.{signature}.{signature}",
            "JSON form": json.dumps({"protected": header, "payload": claims, "signature": signature}),
        }.items()
