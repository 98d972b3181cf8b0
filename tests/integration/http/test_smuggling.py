"""Requests that two servers could read differently (threat 32), over real sockets.

Plan: after each hostile request a second one follows on the same connection, which wants no key. A request is either
refused and the connection ended, or it is one request whose end is where RFC 9112 says; in no case is what lies within
a body answered as a request. A request without a key never gets further by the way its address is written, by headers
that name another address or method, or by trailers: the same list of addresses is asked with and without a key, and the
answer without one is never that of the route. Hosts are one, and the one of the address.
"""

from __future__ import annotations

import pytest
from tests.support.raw import exchange

HIDDEN = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\nX-Hidden: 1\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def post(*lines: bytes, body: bytes = HIDDEN) -> bytes:
    return b"\r\n".join((b"POST /api/sessions HTTP/1.1", b"Host: localhost", *lines, b"", b"")) + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


LENGTH = b"Content-Length: %d" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked"
REFUSED = {
    "length and chunks": post(b"Content-Length: 4", CHUNKED, body=chunked(HIDDEN)),
    "chunks and length": post(CHUNKED, b"Content-Length: 4", body=chunked(HIDDEN)),
    "two lengths": post(b"Content-Length: 0", LENGTH),
    "two equal lengths": post(LENGTH, LENGTH),
    "lengths in a list": post(LENGTH + b", %d" % len(HIDDEN)),
    "a signed length": post(b"Content-Length: +%d" % len(HIDDEN)),
    "a negative length": post(b"Content-Length: -1"),
    "a length in hexadecimal": post(b"Content-Length: 0x10"),
    "a length with an underscore": post(b"Content-Length: 1_0"),
    "a length beyond all numbers": post(b"Content-Length: 99999999999999999999999"),
    "a space before the colon": post(b"Content-Length : %d" % len(HIDDEN)),
    "a tab before the colon": post(b"Transfer-Encoding\t: chunked", body=chunked(HIDDEN)),
    "an unknown encoding": post(b"Transfer-Encoding: xchunked", body=chunked(HIDDEN)),
    "two encodings": post(b"Transfer-Encoding: gzip, chunked", body=chunked(HIDDEN)),
    "chunked twice": post(CHUNKED, CHUNKED, body=chunked(HIDDEN)),
    "chunked and then something": post(b"Transfer-Encoding: chunked, identity", body=chunked(HIDDEN)),
    "identity": post(b"Transfer-Encoding: identity"),
    "a quoted encoding": post(b'Transfer-Encoding: "chunked"', body=chunked(HIDDEN)),
    "an encoding after a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=chunked(HIDDEN)),
    "a folded header": post(b"X-Note: a", b" b", LENGTH),
    "a folded encoding": post(b"Transfer-Encoding:", b" chunked", body=chunked(HIDDEN)),
    "a folded length": post(b"Content-Length:", b" %d" % len(HIDDEN)),
    "a bare line feed": post(b"X: y\nContent-Length: 0", LENGTH),
    "a bare carriage return": post(b"X: y\rContent-Length: 0", LENGTH),
    "a NUL in a value": post(b"X: a\0b", LENGTH),
    "a NUL in a name": post(b"Content-Length\0: 3", LENGTH),
    "a header without a name": post(b": a", LENGTH),
    "a header without a colon": post(b"Content-Length", LENGTH),
    "a chunk size with a sign": post(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a chunk size in 0x": post(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a chunk size beyond all numbers": post(CHUNKED, body=b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "a chunk without its line end": post(CHUNKED, body=b"3\r\nabcX\r\n0\r\n\r\n" + HIDDEN),
    "chunks in HTTP 1.0": b"POST / HTTP/1.0\r\nHost: localhost\r\n" + CHUNKED + b"\r\n\r\n" + chunked(HIDDEN),
    "HTTP 0.9": b"GET /api/models\r\n\r\n" + HIDDEN,
    "HTTP 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a version that is none": b"GET / HTTP/1.9\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "a space in the address": b"GET /api /models HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "a method in lower case": b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n" + HIDDEN,
    "no host": b"GET /health HTTP/1.1\r\n\r\n" + HIDDEN,
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n" + HIDDEN,
    "two equal hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "two keys": post(b"Authorization: Bearer a", b"Authorization: Bearer b", LENGTH),
    "two origins": post(b"Origin: http://evil.example", b"Origin: http://localhost", LENGTH),
    "two types": post(b"Content-Type: text/plain", b"Content-Type: application/json", LENGTH),
    "an address of another host": b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "an address with an account": b"GET http://localhost@evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "an address without a slash": b"GET api/models HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "bytes in the address": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
}  # fmt: skip


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=[name.replace(" ", "-") for name in REFUSED])
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(gateway, request_bytes):
    found = exchange(gateway.url, request_bytes + LAST)
    assert [answer.status for answer in found] == [400], found
    (answer,) = found
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"evil" not in answer.body


TAKEN = {
    "a length": (post(LENGTH), 401),
    "chunks": (post(CHUNKED, body=chunked(HIDDEN)), 401),
    "chunks with extensions": (post(CHUNKED, body=b"%x;a=b\r\n%s\r\n0;c\r\n\r\n" % (len(HIDDEN), HIDDEN)), 401),
    "an encoding in upper case": (post(b"TRANSFER-ENCODING: CHUNKED", body=chunked(HIDDEN)), 401),
    "the address in absolute form": (b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    "an upgrade that is not offered": (
        b"GET /api/models HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        401,
    ),
}


@pytest.mark.parametrize(("request_bytes", "status"), TAKEN.values(), ids=[name.replace(" ", "-") for name in TAKEN])
def test_a_body_is_never_taken_for_a_request(gateway, request_bytes, status):
    found = [answer.status for answer in exchange(gateway.url, request_bytes + LAST)]
    assert found in ([status, 200], [status]), found


def test_a_body_behind_a_request_without_one_is_a_request_and_needs_its_own_key(gateway):
    key = f"Authorization: Bearer {gateway.key}".encode()
    first = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\n" + key + b"\r\n\r\n"
    found = exchange(gateway.url, first + HIDDEN + LAST)
    assert [answer.status for answer in found] == [200, 401, 200], "no key goes from one request to the next"


@pytest.mark.parametrize("name", [b"Authorization", b"authorization", b"X-Forwarded-For", b"Host", b"Content-Length"])
def test_trailers_are_no_headers(gateway, name):
    value = b"Bearer " + gateway.key.encode() if name.lower() == b"authorization" else b"evil.example"
    body = b"2\r\n{}\r\n0\r\n%s: %s\r\n\r\n" % (name, value)
    found = exchange(gateway.url, post(CHUNKED, b"Content-Type: application/json", body=body) + LAST)
    assert found[0].status in (400, 401), found


# The route with and without a key is /api/models; each of these is another way to write it, or leads near it.
ADDRESSES = [
    "/api/models", "//api/models", "/api//models", "/./api/models", "/api/./models", "/x/../api/models",
    "/health/../api/models", "/health/..%2fapi/models", "/health/%2e%2e/api/models", "/%2e%2e/api/models",
    "/api%2fmodels", "/api%2Fmodels", "/%61pi/models", "/api/%6dodels", "/API/models", "/Api/Models", "/api/models/",
    "/api/models?x=/health", "/api/models#/health", "/api/models;/health", "/api/models;.css", "/api/models.json",
    "/api/models%00", "/api/models%0a", "/api/models%20", "/api/models%3f", "/api/models%23", "/api\\models",
    "/api/models/../../health", "/health;/api/models", "/page/../api/models", "/page/..%2f..%2fapi%2fmodels",
    "/page/%2e%2e%2fapi%2fmodels", "/api/objects/../models", "/api/objects/..%2fmodels", "/docs/../api/models",
    "/%2fapi/models", "/api/%252e%252e/api/models", "http://localhost/api/models", "http://localhost//api/models",
]  # fmt: skip
OVERRIDES = [
    "X-HTTP-Method-Override: GET", "X-HTTP-Method: DELETE", "X-Method-Override: GET", "X-Original-URL: /health",
    "X-Rewrite-URL: /health", "X-Original-Method: GET", "X-Forwarded-Prefix: /health", "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1;host=localhost", "X-Forwarded-Host: localhost",
    "X-Forwarded-User: admin", "X-Remote-User: admin", "X-Auth-Request-User: admin", "X-WEBAUTH-USER: admin",
    "X-User-Id: 00000000-0000-7000-8000-000000000002", "X-Tenant-Id: 00000000-0000-7000-8000-000000000001",
    "Cookie: key=1; session=1; Authorization=Bearer x", "X-Api-Key: 1", "X-Middleware-Subrequest: middleware",
]  # fmt: skip


def get(gateway, address: str, *lines: str, method: str = "GET", key: bool = False):
    own = (f"Authorization: Bearer {gateway.key}",) if key else ()
    head = "\r\n".join((f"{method} {address} HTTP/1.1", "Host: localhost", "Connection: close", *own, *lines, "", ""))
    (answer,) = exchange(gateway.url, head.encode("latin-1"))
    return answer


def is_models(answer) -> bool:
    return b"demo/analyst" in answer.body


def test_the_differential_can_see_something(gateway):
    assert is_models(get(gateway, "/api/models", key=True))


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_way_to_write_an_address_gets_around_the_key(gateway, address):
    with_key, without = get(gateway, address, key=True), get(gateway, address)
    assert not is_models(without)
    if is_models(with_key):
        assert without.status == 401
    else:  # no route, or one that is for all: nothing that the key decides
        assert without.status == with_key.status
    assert without.status < 500


@pytest.mark.parametrize("header", OVERRIDES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_no_header_chooses_another_address_method_or_caller(gateway, header, method):
    plain, with_header = get(gateway, "/api/models", method=method), get(gateway, "/api/models", header, method=method)
    assert not is_models(with_header)
    assert with_header.status == plain.status
    if method == "GET":
        assert with_header.status == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:localhost", "127.0.0.1.nip.io", "localhost@evil.example",
     "localhost,evil.example", "[::1].evil.example", "0.0.0.0", "", "localhost\\evil", "2130706433"],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(gateway, host):
    head = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    (answer,) = exchange(gateway.url, head.encode())
    assert answer.status == 400
