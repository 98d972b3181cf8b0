"""Access tokens.

Plan: a token says what it was made for, until its time is over; keys are exchanged without an interruption; a corpus of
forgeries, good signatures over bad claims among them, is refused with the same words for all; every changed character
is seen; no forgery costs much.
"""

from __future__ import annotations

import pytest
from tests.support.forgeries import Forger

from carrel_gateway.errors import Unauthenticated
from carrel_gateway.identity.secrets import MasterKey, MasterKeys
from carrel_gateway.identity.tokens import AccessTokens, is_token
from carrel_gateway.storage.ids import new_id

KEY = MasterKey("k1", bytes(range(32)))
NOW = 1_800_000_000
FORGER = Forger(KEY, NOW)
FORGERIES = list(FORGER.all())


def tokens(*keys: MasterKey, now: float = NOW) -> AccessTokens:
    return AccessTokens(MasterKeys(keys or [KEY]), lifetime_seconds=900, clock=lambda: now)


def issue(by: AccessTokens) -> str:
    return by.issue(tenant_id=new_id(), user_id=new_id(), login_id=new_id()).token


def test_a_token_says_what_it_was_made_for():
    tenant_id, user_id, login_id = new_id(), new_id(), new_id()
    by = tokens()
    made = by.issue(tenant_id=tenant_id, user_id=user_id, login_id=login_id)
    claims = by.verify(made.token)
    assert (claims.tenant_id, claims.user_id, claims.login_id) == (tenant_id, user_id, login_id)
    assert claims.expires_at == made.expires_at
    assert (claims.issued_at.timestamp(), claims.expires_at.timestamp()) == (NOW, NOW + 900)
    assert is_token(made.token)
    assert len(made.token) < 600
    other = by.issue(tenant_id=tenant_id, user_id=user_id, login_id=login_id)
    assert by.verify(other.token).token_id != claims.token_id


@pytest.mark.parametrize(
    ("later", "code"),
    [(-11, "wrong_token"), (-10, None), (899, None), (900, "token_expired"), (10_000, "token_expired")],
)
def test_its_time(later, code):
    by, token = tokens(now=NOW + later), issue(tokens())
    if code is None:
        by.verify(token)
        return
    with pytest.raises(Unauthenticated) as caught:
        by.verify(token)
    assert caught.value.code == code


def test_keys_are_exchanged():
    new = MasterKey("k2", bytes(32))
    before, between, after = tokens(KEY), tokens(new, KEY), tokens(new)
    old_token = issue(before)
    between.verify(old_token)
    after.verify(issue(between))
    with pytest.raises(Unauthenticated):
        after.verify(old_token)
    with pytest.raises(Unauthenticated):  # the same name for another key
        tokens(MasterKey("k1", bytes(32))).verify(old_token)


def test_the_forger_could_make_a_good_one():
    tokens().verify(FORGER.signed(FORGER.header(), FORGER.claims()))
    tokens().verify(FORGER.signed(FORGER.header(), FORGER.claims(more="is ignored")))


def test_the_corpus_is_large_and_each_is_another():
    assert len({name for name, _ in FORGERIES}) == len(FORGERIES) > 100
    assert len({token for _, token in FORGERIES}) == len(FORGERIES)


@pytest.mark.parametrize(
    ("name", "token"), [pytest.param(*forgery, id=ascii(forgery[0])[1:-1]) for forgery in FORGERIES]
)
def test_forged_tokens_are_refused(name, token):
    with pytest.raises(Unauthenticated) as caught:
        tokens().verify(token)
    assert caught.value.code == ("token_expired" if name in {"expired", "just expired"} else "wrong_token")
    assert len(token) < 20 or token not in caught.value.message


def test_a_key_that_is_named_must_be_the_one_that_signed():
    other = MasterKey("k2", bytes(32))
    both = tokens(KEY, other)
    for kid, key in (("k1", Forger(other, NOW).key), ("k2", FORGER.key)):
        with pytest.raises(Unauthenticated):
            both.verify(FORGER.signed(FORGER.header(kid=kid), FORGER.claims(), key))


def test_every_changed_character_is_seen():
    by = tokens()
    token = issue(by)
    for place, own in enumerate(token):
        for character in {"A", "_", ".", "z"} - {own}:
            with pytest.raises(Unauthenticated):
                by.verify(token[:place] + character + token[place + 1 :])
