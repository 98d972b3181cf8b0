"""An OpenID provider on loopback, over real HTTP: as strict as a good one, and as false as a test asks it to be.

It lets everybody in at once as `person`. Codes are good once, for the client, the redirect address and the verifier
that they were made for.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CLIENT_ID = "carrel"
CLIENT_SECRET = "s&cret+ %41"

Claims = dict[str, Any]


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return one key for all: to make one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class FakeIssuer:
    """One provider."""

    redirect_uris: set[str] = field(default_factory=set)
    person: Claims = field(default_factory=lambda: {"sub": "ada"})
    url: str = ""
    algorithm: str = "RS256"
    key: Any = field(default_factory=rsa_key)
    kid: str = "one"
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    userinfo: Claims | None = None
    changed_metadata: Claims = field(default_factory=dict)
    changed_claims: Claims = field(default_factory=dict)
    sign: Callable[[Claims], str] | None = None
    """Makes the id token in place of the real key."""
    said_issuer: str | None = None
    """`iss` of the answer in place of the real one."""
    asked: list[str] = field(default_factory=list)
    """Paths, in the order in which they were asked for."""

    def metadata(self) -> Claims:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?kind=oidc",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA", "HS256", "none"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.changed_metadata,
        }

    def rotate(self, algorithm: str, kid: str) -> None:
        """Sign by another key from now on."""
        made = {
            "RS256": rsa_key,
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": Ed25519PrivateKey.generate,
        }
        self.algorithm, self.kid, self.key = algorithm, kid, made[algorithm]()

    def jwk(self) -> Claims:
        """Return the public half of the key."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return {**algorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}

    def claims(self, asked: dict[str, str]) -> Claims:
        """Return what an id token says."""
        now = int(time.time())
        good = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = {**good, **self.person, **self.changed_claims}
        return {name: value for name, value in claims.items() if value is not None}

    async def authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        assert asked["redirect_uri"] in self.redirect_uris
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.said_issuer or self.url}
        return web.Response(status=302, headers={"Location": f"{asked['redirect_uri']}?{urlencode(answer)}"})

    async def token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        basic = request.headers.get("Authorization", "").partition(" ")[2]
        client, _, secret = base64.b64decode(basic).decode().partition(":")
        if (unquote_plus(client), unquote_plus(secret)) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        asked = self.codes.pop(str(form.get("code")), None)
        challenge = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        if (
            asked is None
            or form["redirect_uri"] != asked["redirect_uri"]
            or base64.urlsafe_b64encode(challenge).rstrip(b"=").decode() != asked["code_challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        claims = self.claims(asked)
        token = self.sign(claims) if self.sign else jwt.encode(claims, self.key, self.algorithm, {"kid": self.kid})
        return web.json_response({"access_token": "access", "token_type": "Bearer", "id_token": token})

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response(self.metadata())
        if request.path == "/keys":
            junk = [{"kty": "oct", "k": "AAAA", "kid": "shared"}, {"kty": "new", "kid": "new"}, "text"]
            return web.json_response({"keys": [*junk, self.jwk()]})
        if request.path == "/userinfo" and request.headers.get("Authorization") == "Bearer access":
            return web.json_response(self.userinfo or {"sub": self.person["sub"]})
        if request.path == "/authorize":
            return await self.authorize(request)
        if request.path == "/token":
            return await self.token(request)
        return web.Response(status=404)


@asynccontextmanager
async def fake_issuer() -> AsyncIterator[FakeIssuer]:
    """Run one on a free port."""
    issuer = FakeIssuer()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", issuer.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


def parameters(address: str) -> dict[str, str]:
    """Return the query of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
