"""One OpenID provider, found by discovery: where people are sent, how a code is exchanged, and whose token is right.

Whatever the provider answers is checked here: it names itself as it was named in the settings, its addresses are HTTPS
(on loopback HTTP will do), and an id token is signed by one of its published keys with one of three algorithms, is for
this client, for this login and for now. What is done with the person is decided elsewhere. Source: OpenID Connect Core
1.0, RFC 7636 (PKCE), RFC 9207 (`iss`), RFC 9700.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote_plus, urlsplit

import httpx
import jwt
import msgspec
from authlib.oauth2.rfc6749 import parameters
from authlib.oauth2.rfc7636 import challenge
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from carrel_gateway.accounts.attempts import Attempt, Identity, refused
from carrel_gateway.errors import CarrelError, Unavailable
from carrel_gateway.settings import Settings
from carrel_gateway.web.guards import is_loopback

ALGORITHMS: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""Those that are accepted, with the type of key that each takes: no shared secret, nothing unsigned."""
LEEWAY_SECONDS: Final = 30
_KEPT_SECONDS: Final = 3600.0
_KEYS_PAUSE_SECONDS: Final = 30.0
"""A key that is not known has them fetched anew, but no more often than this."""
_TIMEOUT_SECONDS: Final = 10.0
_MAX_BYTES: Final = 1024 * 1024
_MAX_SUBJECT: Final = 255
_REQUIRED: Final = ["iss", "sub", "aud", "exp", "iat", "nonce"]


class ProviderSettingsUnusable(CarrelError):
    """The settings of the provider cannot be used."""

    code = "oidc_settings_unusable"


class ProviderAway(Unavailable):
    """The provider does not answer, or not as it must."""

    code = "oidc_provider_away"


class Metadata(msgspec.Struct, frozen=True):
    """What discovery says, of which this is used (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    id_token_signing_alg_values_supported: list[str] = msgspec.field(default_factory=lambda: ["RS256"])
    token_endpoint_auth_methods_supported: list[str] = msgspec.field(default_factory=lambda: ["client_secret_basic"])
    code_challenge_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


class Provider:
    """The provider of one installation."""

    def __init__(self, settings: Settings, redirect_uri: str) -> None:
        issuer, client_id = settings.oidc_issuer, settings.oidc_client_id
        if not issuer or not client_id:
            raise ProviderSettingsUnusable("CARREL_OIDC_ISSUER and CARREL_OIDC_CLIENT_ID must both be set")
        if not _is_safe(issuer):
            raise ProviderSettingsUnusable("CARREL_OIDC_ISSUER must be an https:// address without query")
        self.issuer = issuer
        self._client_id = client_id
        self._secret = _secret(settings)
        self._scopes = settings.oidc_scopes
        self._redirect_uri = redirect_uri
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False)
        self._turn = asyncio.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, Mapping[str | None, list[jwt.PyJWK]]] | None = None

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def begin(self, attempt: Attempt) -> str:
        """Return the address that a browser is sent to.

        Raises
        ------
        ProviderAway
            The provider does not answer, or not as it must.
        """
        metadata = await self._discover()
        library: Any = parameters  # it has no types
        address: str = library.prepare_grant_uri(
            metadata.authorization_endpoint,
            self._client_id,
            "code",
            redirect_uri=self._redirect_uri,
            scope=self._scopes,
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=cast("Any", challenge).create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return address

    async def finish(self, attempt: Attempt, *, code: str, issuer: str | None) -> Identity:
        """Exchange the code with which a browser came back, and return who it is.

        Raises
        ------
        Unauthenticated
            The code or the token is not good, or is another provider's.
        ProviderAway
            The provider does not answer, or not as it must.
        """
        metadata = await self._discover()
        if issuer != metadata.issuer and (issuer or metadata.authorization_response_iss_parameter_supported):
            raise refused("the answer is not from the provider that was asked")
        answer = await self._exchange(metadata, attempt, code)
        token, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(token, str):
            raise refused("the provider sent no id token")
        claims = await self._verified(metadata, token, attempt.nonce, access)
        if "email" not in claims and isinstance(access, str) and metadata.userinfo_endpoint:
            claims |= await self._userinfo(metadata.userinfo_endpoint, access, claims["sub"])
        email, name = claims.get("email"), claims.get("name")
        return Identity(
            issuer=metadata.issuer,
            subject=claims["sub"],
            email=email if isinstance(email, str) else None,
            email_verified=claims.get("email_verified") is True,
            name=name if isinstance(name, str) and name.strip() else None,
        )

    async def _exchange(self, metadata: Metadata, attempt: Attempt, code: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": attempt.verifier,
        }
        basic = "client_secret_basic" in metadata.token_endpoint_auth_methods_supported
        headers = {"Accept": "application/json"}
        if self._secret and basic:
            # Each half is encoded as a form's before (RFC 6749, 2.3.1).
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self._client_id, **({"client_secret": self._secret} if self._secret else {})}
        try:
            answer = await self._http.post(metadata.token_endpoint, data=form, headers=headers)
        except httpx.HTTPError as error:
            raise _away("it did not exchange the code") from error
        if answer.status_code in {400, 401}:
            raise refused("the provider did not take the code")
        return _document(answer)

    async def _verified(self, metadata: Metadata, token: str, nonce: str, access: Any) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise refused("its id token cannot be read") from error
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS or algorithm not in metadata.id_token_signing_alg_values_supported:
            raise refused("its id token is signed by an algorithm that is not accepted")
        for key in await self._candidates(metadata, header.get("kid"), ALGORITHMS[algorithm]):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[algorithm],
                    audience=self._client_id,
                    issuer=metadata.issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": _REQUIRED},
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, jwt.InvalidKeyError, TypeError, ValueError) as error:
                raise refused("its id token is not good") from error
            self._require_for_us(claims, header, nonce, access)
            return claims
        raise refused("its id token is not signed by one of its keys")

    def _require_for_us(self, claims: dict[str, Any], header: dict[str, Any], nonce: str, access: Any) -> None:
        parameters = {"nonce": nonce, "client_id": self._client_id, "access_token": access}
        try:
            CodeIDToken(claims, header, params=parameters).validate(leeway=LEEWAY_SECONDS)
        except (JoseError, TypeError, ValueError) as error:
            raise refused("its id token is for another login or another client") from error
        if not isinstance(claims["nonce"], str) or claims["nonce"] != nonce:
            raise refused("its id token is for another login")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= _MAX_SUBJECT:
            raise refused("its id token names nobody")

    async def _userinfo(self, address: str, access: str, subject: str) -> dict[str, Any]:
        found = await self._get(address, headers={"Authorization": f"Bearer {access}"})
        if found.get("sub") != subject:
            raise refused("the provider told of another person")
        return {name: found[name] for name in ("email", "email_verified", "name") if name in found}

    async def _discover(self) -> Metadata:
        async with self._turn:
            if self._metadata and time.monotonic() - self._metadata[0] < _KEPT_SECONDS:
                return self._metadata[1]
            document = await self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
            try:
                found = msgspec.convert(document, Metadata)
            except msgspec.ValidationError as error:
                raise _away("its description is not whole") from error
            if found.issuer != self.issuer:
                raise _away("it describes itself as another one than CARREL_OIDC_ISSUER says")
            addresses = [found.authorization_endpoint, found.token_endpoint, found.jwks_uri]
            if not all(_is_safe(address, self.issuer) for address in [*addresses, found.userinfo_endpoint] if address):
                raise _away("it names an address that is not https://")
            methods = found.code_challenge_methods_supported
            if methods is not None and "S256" not in methods:
                raise _away("it does not know PKCE with S256")
            if not set(found.id_token_signing_alg_values_supported) & set(ALGORITHMS):
                raise _away(f"it signs by none of {', '.join(ALGORITHMS)}")
            self._metadata = (time.monotonic(), found)
            return found

    async def _candidates(self, metadata: Metadata, kid: Any, kind: str) -> list[jwt.PyJWK]:
        async with self._turn:
            now = time.monotonic()
            age = now - self._keys[0] if self._keys else _KEPT_SECONDS
            known: Mapping[str | None, list[jwt.PyJWK]] = self._keys[1] if self._keys else {}
            if age >= _KEPT_SECONDS or (kid not in known and age >= _KEYS_PAUSE_SECONDS):
                known = _by_kid(await self._get(metadata.jwks_uri))
                self._keys = (now, known)
        keys = known.get(kid, []) if kid is not None else [key for some in known.values() for key in some]
        return [key for key in keys if key.key_type == kind]

    async def _get(self, address: str, **options: Any) -> dict[str, Any]:
        try:
            answer = await self._http.get(address, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away("it does not answer") from error
        return _document(answer)


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        if answer.status_code == 200 and len(answer.content) <= _MAX_BYTES:
            return msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise _away("its answer is no JSON") from error
    raise _away("its answer is not as it must be")


def _by_kid(document: dict[str, Any]) -> dict[str | None, list[jwt.PyJWK]]:
    found: dict[str | None, list[jwt.PyJWK]] = {}
    keys = document.get("keys")
    for entry in cast("list[Any]", keys) if isinstance(keys, list) else []:
        if not isinstance(entry, dict) or cast("dict[str, Any]", entry).get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(cast("dict[str, Any]", entry))
        except (jwt.PyJWTError, ValueError, TypeError):  # of a kind that is not known here; others may be
            continue
        found.setdefault(key.key_id, []).append(key)
    return found


def _secret(settings: Settings) -> str | None:
    if settings.oidc_client_secret_file is not None:
        try:
            return settings.oidc_client_secret_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ProviderSettingsUnusable(f"CARREL_OIDC_CLIENT_SECRET_FILE cannot be read: {error}") from error
    return settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else None


def _is_safe(address: str, issuer: str | None = None) -> bool:
    """Return whether an address is HTTPS; HTTP will do on loopback, when the provider itself is there."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.fragment or (issuer is None and parts.query) or not host:
        return False
    here = is_loopback(host) and (issuer is None or issuer.startswith("http://"))
    return parts.scheme == "https" or (parts.scheme == "http" and here)


def _away(why: str) -> ProviderAway:
    return ProviderAway(f"the provider of CARREL_OIDC_ISSUER cannot be used: {why}")
