"""Addresses of mail and their canonical form: what is one account must not look like two, nor two like one."""

from __future__ import annotations

import pytest

from carrel_gateway.accounts.addresses import canonical, domain_of


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        ("  ada+tag@example.org ", "ada+tag@example.org"),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("ada@intern.corp", "ada@intern.corp"),
    ],
)
def test_forms(text, form):
    assert canonical(text) == form
    assert canonical(form) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "ada@",
        "@example.org",
        "ada@example.org\r\nBcc: all@example.org",
        "ada@example.org, bob@example.org",
        "Ada <ada@example.org>",
        "\u0430da@example.org",
        "ada@localhost",
        "ada@exa mple.org",
        '"ada lovelace"@example.org',
        "ada@[127.0.0.1]",
        "ada@example..org",
        "ada\0@example.org",
        "\udcff@example.org",
        "a" * 65 + "@example.org",
        "ada@" + "a." * 200 + "org",
    ],
)
def test_what_is_none(text):
    with pytest.raises(ValueError, match="address of mail"):
        canonical(text)


def test_domain():
    assert domain_of("ada@example.org") == "example.org"
