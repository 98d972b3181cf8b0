"""Where a connection comes from: what a caller can write counts for nothing."""

from __future__ import annotations

import pytest

from carrel_gateway.web.address import UNKNOWN, client_address


def scope(peer: str | None, *forwarded: str) -> dict:
    headers = [(b"host", b"x"), *((b"X-Forwarded-For", value.encode("latin-1")) for value in forwarded)]
    return {"client": (peer, 1234) if peer else None, "headers": headers}


@pytest.mark.parametrize("header", ["203.0.113.9", "203.0.113.9, 198.51.100.7", "10.0.0.1", ""])
def test_without_proxies_no_header_is_read(header):
    assert client_address(scope("192.0.2.1", header), trusted_proxies=0) == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "proxies", "expected"),
    [
        (["203.0.113.9"], 1, "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9"], 1, "203.0.113.9"),  # the caller wrote 6.6.6.6
        (["6.6.6.6", "203.0.113.9"], 1, "203.0.113.9"),  # as a header of its own
        (["6.6.6.6, 203.0.113.9, 198.51.100.7"], 2, "203.0.113.9"),
        (["203.0.113.9"], 2, "203.0.113.9"),
        ([], 1, "192.0.2.1"),
        (["not an address"], 1, "192.0.2.1"),
        (["203.0.113.9:4711"], 1, "203.0.113.9"),
        (['"[2001:db8:1:2:3::4]:443"'], 1, "2001:db8:1:2::/64"),
        (["::ffff:203.0.113.9"], 1, "203.0.113.9"),
        (["203.0.113.009"], 1, "192.0.2.1"),
        (["\xff\xfe"], 1, "192.0.2.1"),
    ],
)
def test_behind_proxies(forwarded, proxies, expected):
    assert client_address(scope("192.0.2.1", *forwarded), trusted_proxies=proxies) == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("2001:db8:1:2::1", "2001:db8:1:2::/64"), ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"), (None, UNKNOWN)],
)
def test_addresses_of_one_customer_are_one(peer, expected):
    assert client_address(scope(peer), trusted_proxies=0) == expected
