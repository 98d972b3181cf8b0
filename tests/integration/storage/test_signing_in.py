"""Signing in with an OpenID provider, a fake one over real HTTP, over SQLite and Postgres (threat 24).

Plan: the right way, by each algorithm; keys are exchanged; attacks: another browser, another state, another provider,
another nonce, a code that was used, no PKCE, tokens that are forged or for others, a provider that describes itself
falsely; whose account it is: a verified address links, any other does not; newcomers join the tenant of the settings;
two windows at once make one account; what goes wrong with the provider is said; the audit log is told of all of it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from dataclasses import replace

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.account_desk import BROWSER, PASSWORD, PROGRAM, AccountDesk, account_desk, principal_of
from tests.support.fake_issuer import CLIENT_ID, CLIENT_SECRET, FakeIssuer, fake_issuer, parameters
from tests.support.forgeries import encoded
from tests.support.people import change_user
from tests.support.state import new_principal

from carrel_gateway.accounts import repository
from carrel_gateway.accounts.profile import ProfileService
from carrel_gateway.accounts.provider import Provider, ProviderSettingsUnusable
from carrel_gateway.accounts.service import Tokens
from carrel_gateway.accounts.signing_in import SignInService
from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.errors import CarrelError
from carrel_gateway.identity.rights import Role
from carrel_gateway.storage.ids import new_id

CALLBACK = "https://carrel.example.org/api/auth/oidc/callback"
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def issuer():
    async with fake_issuer() as running:
        running.redirect_uris = {CALLBACK}
        running.person = {"sub": new_id().hex}
        yield running


@pytest.fixture
def settings(settings, issuer):
    told = {
        "registration": "open",
        "public_url": "https://carrel.example.org/",
        "oidc_issuer": issuer.url,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
    }
    return type(settings)(_env_file=None, **{**settings.model_dump(exclude_unset=True), **told})


@pytest.fixture
async def desk(context):
    async with account_desk(context) as opened:
        yield opened


async def away(desk: AccountDesk) -> tuple[dict[str, str], str]:
    """Send a browser to the provider, and return what it comes back with, and its cookie."""
    address, cookie = await SignInService(desk.parts).begin()
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(address)
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    return parameters(answer.headers["location"]), cookie


async def back(desk: AccountDesk, answer: dict[str, str], cookie: str | None) -> Tokens:
    return await SignInService(desk.parts).finish(
        cookie, BROWSER, state=answer.get("state"), code=answer.get("code"), issuer=answer.get("iss")
    )


async def sign_in(desk: AccountDesk) -> Tokens:
    return await back(desk, *await away(desk))


async def code_of(work) -> str:
    with pytest.raises(CarrelError) as caught:
        await work
    return caught.value.code


async def told(desk: AccountDesk, by: Tokens) -> list[tuple[str, dict]]:
    """Return what the tenant's log says of a person, oldest first."""
    await desk.parts.works.done()
    page = await AuditService(desk.parts.context, principal_of(by)).list(Filter(actor=str(by.user_id)))
    return [(entry.action, json.loads(entry.detail)) for entry in reversed(page.items)]


async def profile_of(desk: AccountDesk, tokens: Tokens):
    return await ProfileService(desk.parts.context, principal_of(tokens)).get()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_the_right_way(desk: AccountDesk, issuer: FakeIssuer, algorithm):
    issuer.rotate(algorithm, "k")
    issuer.person |= {"email": f"{issuer.person['sub']}@example.org", "email_verified": True, "name": "Ada"}
    first = await sign_in(desk)
    profile = await profile_of(desk, first)
    assert (profile.member.name, profile.member.email, profile.member.role) == (
        "Ada",
        issuer.person["email"],
        Role.USER,
    )
    issuer.person |= {"email": "other@example.org", "name": "Somebody else"}
    again = await sign_in(desk)
    assert again.user_id == first.user_id
    assert (await profile_of(desk, again)).member.name == "Ada"
    await desk.logins.refresh(again.refresh, BROWSER)
    assert issuer.asked.count("/.well-known/openid-configuration") == issuer.asked.count("/keys") == 1


async def test_keys_are_exchanged(desk: AccountDesk, issuer: FakeIssuer, monkeypatch):
    await sign_in(desk)
    issuer.rotate("ES256", "two")
    assert await code_of(sign_in(desk)) == "oidc_refused"  # they were fetched a moment ago
    monkeypatch.setattr("carrel_gateway.accounts.provider._KEYS_PAUSE_SECONDS", 0.0)
    await sign_in(desk)
    assert issuer.asked.count("/keys") == 2


async def test_another_browser_and_another_state(desk: AccountDesk):
    """Login CSRF: who has somebody come back with a code of their own logs them in as themselves."""
    answer, cookie = await away(desk)
    other_answer, other_cookie = await away(desk)
    for given, kept in [
        (answer, None),
        (answer, ""),
        (answer, other_cookie),
        (other_answer, cookie),
        ({**answer, "state": ""}, cookie),
        ({**answer, "state": answer["state"] + "x"}, cookie),
        ({**answer, "state": "\udcff"}, cookie),
        ({**answer, "state": None}, cookie),
        (answer, cookie[:-2]),
        (answer, "k1.AAAA"),
        (answer, "\u00e9" * 100),
        (answer, "x" * 100_000),
        (answer, desk.parts.context.secrets.seal("mail-links", b"{}", bound_to="setup")),
    ]:
        assert await code_of(back(desk, given, kept)) == "oidc_refused"
    assert await back(desk, answer, cookie)


async def test_it_takes_no_longer_than_ten_minutes(desk: AccountDesk, monkeypatch):
    answer, cookie = await away(desk)
    now = time.time()
    monkeypatch.setattr("carrel_gateway.accounts.signing_in.time.time", lambda: now + 601)
    assert await code_of(back(desk, answer, cookie)) == "oidc_refused"


@pytest.mark.parametrize("said", ["https://evil.example", "", None])
async def test_another_provider(desk: AccountDesk, said):
    """Mix-up: the answer is another provider's, or does not say whose it is where it should (RFC 9207)."""
    answer, cookie = await away(desk)
    assert await code_of(back(desk, {**answer, "iss": said}, cookie)) == "oidc_refused"


async def test_a_code_is_good_once(desk: AccountDesk):
    answer, cookie = await away(desk)
    answers = await asyncio.gather(*(back(desk, answer, cookie) for _ in range(5)), return_exceptions=True)
    assert len([one for one in answers if isinstance(one, Tokens)]) == 1
    assert {one.code for one in answers if isinstance(one, CarrelError)} == {"oidc_refused"}


@pytest.mark.parametrize("code", ["made-up", "", None])
async def test_a_code_that_was_made_up(desk: AccountDesk, code):
    answer, cookie = await away(desk)
    assert await code_of(back(desk, {**answer, "code": code}, cookie)) == "oidc_refused"


async def test_a_stolen_code_is_good_for_nothing(desk: AccountDesk):
    """PKCE: a code that was made for another attempt does not come with this one's verifier."""
    stolen, _ = await away(desk)
    answer, cookie = await away(desk)
    assert await code_of(back(desk, {**answer, "code": stolen["code"]}, cookie)) == "oidc_refused"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ["x"]},
        {"aud": "other"},
        {"aud": None},
        {"aud": [CLIENT_ID, "other"]},
        {"aud": [CLIENT_ID, "other"], "azp": "other"},
        {"azp": "other"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"iat": 4_000_000_000},
        {"nbf": 4_000_000_000},
        {"at_hash": "AAAA"},
    ],
    ids=repr,
)
async def test_tokens_for_others(desk: AccountDesk, issuer: FakeIssuer, changes):
    issuer.changed_claims = changes
    assert await code_of(sign_in(desk)) == "oidc_refused"


def public(issuer: FakeIssuer) -> bytes:
    return issuer.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def by_hmac(claims, secret: bytes) -> str:
    """Return a token signed with a secret that a library would refuse for one."""
    text = f"{encoded({'alg': 'HS256', 'kid': 'one', 'typ': 'JWT'})}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256'))}"


FORGERIES = {
    "unsigned": lambda _, claims: jwt.encode(claims, None, "none", {"kid": "one"}),
    "another key": lambda _, claims: jwt.encode(claims, OTHER_KEY, "RS256", {"kid": "one"}),
    "another kid": lambda issuer, claims: jwt.encode(claims, issuer.key, "RS256", {"kid": "two"}),
    "no kid, another key": lambda _, claims: jwt.encode(claims, OTHER_KEY, "RS256"),
    "public key as secret": lambda issuer, claims: by_hmac(claims, public(issuer)),
    "client secret": lambda _, claims: jwt.encode(claims, CLIENT_SECRET * 4, "HS256", {"kid": "one"}),
    "shared key of the set": lambda _, claims: jwt.encode(claims, bytes(32), "HS256", {"kid": "shared"}),
    "another algorithm of the key": lambda issuer, claims: jwt.encode(claims, issuer.key, "RS512", {"kid": "one"}),
    "algorithm of another type": lambda _, claims: jwt.encode(claims, OTHER_KEY, "PS256", {"kid": "one"}),
    "its own key": lambda _, claims: jwt.encode(
        claims,
        OTHER_KEY,
        "RS256",
        {"kid": "x", "jwk": jwt.get_algorithm_by_name("RS256").to_jwk(OTHER_KEY.public_key(), as_dict=True)},
    ),
    "no token": lambda *_: "",
    "no dots": lambda *_: "token",
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_forged_tokens(desk: AccountDesk, issuer: FakeIssuer, name):
    issuer.sign = lambda claims: FORGERIES[name](issuer, claims)
    assert await code_of(sign_in(desk)) == "oidc_refused"
    issuer.sign = None
    assert await sign_in(desk)


async def test_a_token_without_kid_is_tried_with_all_keys(desk: AccountDesk, issuer: FakeIssuer):
    issuer.sign = lambda claims: jwt.encode(claims, issuer.key, "RS256")
    assert await sign_in(desk)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://evil.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "file:///etc/passwd"},
        {"userinfo_endpoint": "http://169.254.169.254/"},
        {"jwks_uri": None},
        {"code_challenge_methods_supported": ["plain"]},
        {"id_token_signing_alg_values_supported": ["HS256", "none", "RS512"]},
    ],
    ids=repr,
)
async def test_a_provider_that_cannot_be_used(desk: AccountDesk, issuer: FakeIssuer, changes):
    issuer.changed_metadata = changes
    assert await code_of(SignInService(desk.parts).begin()) == "oidc_provider_away"
    issuer.changed_metadata = {}
    assert await sign_in(desk)


async def test_an_algorithm_that_the_provider_does_not_name_is_not_taken(desk: AccountDesk, issuer: FakeIssuer):
    issuer.changed_metadata = {"id_token_signing_alg_values_supported": ["ES256"]}
    assert await code_of(sign_in(desk)) == "oidc_refused"


@pytest.mark.parametrize("verified", [False, None, "true", 1])
async def test_an_address_that_is_not_verified_links_nothing(desk: AccountDesk, issuer: FakeIssuer, verified):
    """Account takeover: who writes another's address into a provider must not have their account."""
    email = desk.address()
    victim = await desk.set_up(email)
    issuer.person |= {"email": email, "email_verified": verified}
    tokens = await sign_in(desk)
    assert tokens.user_id != victim.user_id
    assert tokens.tenant_id != victim.tenant_id
    profile = await profile_of(desk, tokens)
    assert profile.member.email is None
    assert profile.member.role == Role.USER


async def test_a_verified_address_links_once(desk: AccountDesk, issuer: FakeIssuer):
    email = desk.address()
    known = await desk.set_up(email)
    issuer.person |= {"email": email.upper(), "email_verified": True}
    tokens = await sign_in(desk)
    assert (tokens.user_id, tokens.tenant_id) == (known.user_id, known.tenant_id)
    assert await desk.accounts.log_in(email, PASSWORD, PROGRAM)
    issuer.person |= {"sub": "another one with the same address"}
    assert await code_of(sign_in(desk)) == "address_taken"
    assert (await told(desk, known))[1:] == [
        ("user.linked", {"issuer": issuer.url}),
        ("login.opened", {"client": "browser", "method": "oidc"}),
        ("login.opened", {"client": "program", "method": "password"}),
        ("login.refused", {"method": "oidc", "reason": "address_taken"}),
    ]


async def test_an_address_comes_from_userinfo_of_the_same_person(desk: AccountDesk, issuer: FakeIssuer):
    email = desk.address()
    known = await desk.set_up(email)
    issuer.userinfo = {"sub": "another", "email": email, "email_verified": True}
    assert await code_of(sign_in(desk)) == "oidc_refused"
    issuer.userinfo |= {"sub": issuer.person["sub"]}
    assert (await sign_in(desk)).user_id == known.user_id


async def test_newcomers_join_the_tenant_of_the_settings(desk: AccountDesk, issuer: FakeIssuer):
    tenant = (await new_principal(desk.parts.context.database)).tenant_id
    changed = desk.parts.context.settings.model_copy(update={"oidc_tenant": tenant, "oidc_role": "readonly"})
    other = replace(desk, parts=replace(desk.parts, context=replace(desk.parts.context, settings=changed)))
    tokens = await sign_in(other)
    assert tokens.tenant_id == tenant
    profile = await profile_of(other, tokens)
    assert (profile.member.role, profile.member.name) == (Role.READONLY, "Somebody")
    (joined, _) = await told(other, tokens)
    assert joined == ("user.joined", {"by": "oidc", "role": "readonly"})


async def test_two_windows_at_once_make_one_account(desk: AccountDesk):
    ready = [await away(desk) for _ in range(6)]
    tokens = await asyncio.gather(*(back(desk, *one) for one in ready))
    assert len({one.user_id for one in tokens}) == 1


async def test_the_disabled_stay_out(desk: AccountDesk, issuer: FakeIssuer):
    tokens = await sign_in(desk)
    (login,) = await desk.logins.list(principal_of(tokens))
    await change_user(desk.parts.context.database, principal_of(tokens), disabled_at=login.created_at)
    assert await code_of(sign_in(desk)) == "disabled"
    assert (await told(desk, tokens))[-1] == ("login.refused", {"method": "oidc", "reason": "disabled"})


async def test_who_signs_in_elsewhere_is_told_so_by_mail(desk: AccountDesk, issuer: FakeIssuer):
    email = desk.address()
    issuer.person |= {"email": email, "email_verified": True}
    tokens = await sign_in(desk)
    await desk.accounts.forgot(email)
    mail = await desk.mail(email)
    assert mail["Subject"] == "How you log in to Carrel"
    assert "#reset=" not in mail.get_content()
    async with desk.parts.context.database.login_transaction() as connection:
        assert (await repository.by_id(connection, tokens.user_id)).password_hash is None


async def test_a_provider_that_is_away(desk: AccountDesk, issuer: FakeIssuer):
    gone = desk.parts.context.settings.model_copy(update={"oidc_issuer": "http://127.0.0.1:9"})
    provider = Provider(gone, CALLBACK)
    other = replace(desk, parts=replace(desk.parts, provider=provider))
    assert await code_of(SignInService(other.parts).begin()) == "oidc_provider_away"
    await provider.aclose()
    none = replace(desk.parts, provider=None)
    assert await code_of(SignInService(none).begin()) == "no_oidc_provider"


@pytest.mark.parametrize(
    "named",
    [
        {"oidc_client_id": None},
        {"oidc_issuer": "http://idp.example"},
        {"oidc_issuer": "idp.example"},
        {"oidc_issuer": "https://idp.example/?x=1"},
        {"oidc_issuer": "https://[::1"},
        {"oidc_client_secret_file": "/nonexistent/secret"},
    ],
    ids=repr,
)
def test_settings_that_cannot_be_used(make_settings, named):
    told = {"oidc_issuer": "https://idp.example", "oidc_client_id": "x", **named}
    with pytest.raises(ProviderSettingsUnusable, match="CARREL_OIDC_"):
        Provider(make_settings(**told), CALLBACK)


def test_the_secret_may_be_in_a_file(make_settings, tmp_path):
    (tmp_path / "secret").write_text("hidden\n")
    told = {"oidc_issuer": "https://idp.example", "oidc_client_id": "x"}
    assert Provider(make_settings(**told, oidc_client_secret_file=tmp_path / "secret"), CALLBACK)._secret == "hidden"
