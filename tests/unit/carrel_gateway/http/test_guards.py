"""Bind addresses, Host and Origin.

Plan: the local executor with every kind of address; hosts with ports, brackets and look-alikes; origins of the
gateway itself, of settings, of strangers, and `null`.
"""

from __future__ import annotations

import pytest

from carrel_gateway.settings import Settings
from carrel_gateway.web.guards import (
    ExposedLocalExecutor,
    host_allowed,
    host_name,
    is_loopback,
    origin_allowed,
    refuse_exposure,
)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "localhost.example.org", "", "127.0.0.1.nip.io"]
)
def test_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::"])
def test_local_executor_is_not_offered_to_other_machines(host, tmp_path):
    with pytest.raises(ExposedLocalExecutor, match=r"serves one person on this machine. Use --host 127\.0\.0\.1"):
        refuse_exposure(Settings(host=host, data_dir=tmp_path))


def test_isolated_executor_may_listen_anywhere(tmp_path):
    key = tmp_path / "key.pem"
    refuse_exposure(
        Settings(host="0.0.0.0", executor_type="kubernetes", kernel_private_key_file=key, data_dir=tmp_path)
    )


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8000", "localhost"),
        ("[::1]:8000", "::1"),
        ("A.Example", "a.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1].evil.example", None),
        ("localhost:80:80", None),
        ("localhost@evil.example", None),
        ("localhost,evil.example", None),
        ("localhost\n", None),
        ("", None),
    ],
)
def test_host_name(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("header", "allowed", "local", "expected"),
    [
        ("localhost:8000", [], True, True),
        ("[::1]:8000", [], True, True),
        ("evil.example:8000", [], True, False),
        ("", [], True, False),
        ("", [], False, True),
        ("", ["desk.example"], False, False),
        ("[::1].evil.example", [], True, False),
        ("a b", [], False, False),
        ("desk.example", ["desk.example"], True, True),
        ("evil.example", [], False, True),
        ("evil.example", ["desk.example"], False, False),
        ("DESK.example:443", ["desk.EXAMPLE"], False, True),
    ],
)
def test_hosts(header, allowed, local, expected):
    assert host_allowed(header, allowed=allowed, loopback_only=local) is expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, True),
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("https://ui.example", True),
        ("http://localhost:9999", False),
        ("http://evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://localhost:8000.evil.example", False),
    ],
)
def test_origins(origin, expected):
    assert origin_allowed(origin, "localhost:8000", ["https://ui.example"]) is expected
