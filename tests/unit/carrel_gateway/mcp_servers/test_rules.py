"""What commands, addresses, variables and headers may be: what is refused says what to do, and is not repeated."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from carrel_gateway.mcp_servers.schemas import ServerCreate, ServerOut, ServerUpdate, TemplateOut
from carrel_gateway.mcp_servers.templates import TEMPLATES

CANARY = "canary-0123456789"
TARGET = {"name": "x", "url": "https://tools.example.org/mcp"}
STARTED = {"name": "x", "command": ["uvx", "x"]}


def refused(body: dict[str, Any], kind: type[ServerCreate | ServerUpdate] = ServerCreate) -> str:
    """Return why a body is refused."""
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)
    return "; ".join(item["msg"] for item in found.value.errors())


@pytest.mark.parametrize(
    "url",
    [
        "https://tools.example.org/mcp",
        "HTTPS://tools.example.org:8443/mcp?project=a&mode=read",
        "https://10.0.0.7/mcp",
        "https://[2001:db8::1]:8443/",
        "https://xn--bcher-kva.example",
        "http://localhost:9000/mcp",
        "http://127.0.0.1:9000",
        "http://127.9.9.9",
        "http://[::1]:9000/mcp",
    ],
)
def test_addresses(url: str) -> None:
    assert ServerCreate.model_validate({**TARGET, "url": url}).new().target == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *[
            (url, "is https://host/path")
            for url in (
                "",
                "tools.example.org",
                "//tools.example.org",
                f"ftp://{CANARY}",
                f"file:///{CANARY}",
                f"javascript:{CANARY}",
                "https://",
                "https://:443",
                "https://a:0",
                "https://a:65536",
                "https://a:x",
                "https://[::1",
                "https://[fe80::1%25eth0]/",
                "https://a%2f.example",
                "https://-a",
            )
            if url
        ],
        *[
            (url, "begins with https://")
            for url in (
                "http://tools.example.org",
                "http://localhost.example.org",
                "http://128.0.0.1",
                "http://0.0.0.0",
                "http://2130706433",
                "http://127.1",
                "http://[::ffff:7f00:2]",
                "HTTP://tools.example.org",
            )
        ],
        *[
            (url, "give what is secret in `headers`")
            for url in (
                f"https://user:{CANARY}@a.example",
                f"https://{CANARY}@a.example",
                "https://@a.example",
                "http://localhost:80@a.example",
                f"https://a.example/?apiKey={CANARY}",
                f"https://a.example/?x=1&access_token={CANARY}",
                f"https://a.example/?%74oken={CANARY}",
                "https://a.example/?auth",
            )
        ],
        *[
            (url, "is printable ASCII")
            for url in (
                "",
                " https://a.example",
                "https://a.example\n",
                "https://a.example/a b",
                "https://a.example\\@b.example",
                "https://bücher.example",
                "https://a.example/\x7f",
                "https://a.example/" + "x" * 2048,
            )
        ],
        ("https://a.example/#x", "part after `#`"),
        ("https://a.example#", "part after `#`"),
    ],
)
def test_what_is_no_address(url: str, why: str) -> None:
    message = refused({**TARGET, "url": url})
    assert why in message
    assert CANARY not in message


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ([], "at least 1 item"),
        (["x"] * 65, "at most 64 items"),
        ([" "], "the program"),
        (["x", "a\0b"], "NUL"),
        (["x", "y" * 16_384], "at most 16384 bytes"),
        (["psql", f"postgres://ada:{CANARY}@db.example/x"], "give the server its password in `env`"),
        (["x", f"--db=mysql://:{CANARY}@db"], "give the server its password in `env`"),
        ("uvx x", "valid list"),
        (["x", "\ud800"], "half a surrogate pair"),
    ],
)
def test_what_is_no_command(command: Any, why: str) -> None:
    message = refused({**STARTED, "command": command})
    assert why in message
    assert CANARY not in message


def test_a_command_may_hold_addresses_and_colons() -> None:
    command = ["x", "https://a.example:80/b@c", "a:b@c", "", "://"]
    assert ServerCreate.model_validate({**STARTED, "command": command}).new().target == command


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"1A": "x"}, "a variable's name"),
        ({"A-B": "x"}, "a variable's name"),
        ({"": "x"}, "a variable's name"),
        ({"A=": "x"}, "a variable's name"),
        ({"Ä": "x"}, "a variable's name"),
        ({"A\n": "x"}, "a variable's name"),
        ({"A" * 129: "x"}, "a variable's name"),
        ({"A": f"{CANARY}\0"}, "NUL"),
        ({"A": CANARY * 2000}, "at most 32768 bytes"),
        ({"A": "€" * 11_000}, "at most 32768 bytes"),
        ({f"A{number}": "" for number in range(65)}, "at most 64 items"),
        ({"A": 7}, "valid string"),
        ({"A": True}, "valid string"),
        ({"A": f"{CANARY}\ud800"}, "half a surrogate pair"),
    ],
)
def test_what_is_no_environment(env: Any, why: str) -> None:
    message = refused({**STARTED, "env": env})
    assert why in message
    assert CANARY not in message


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"A B": "x"}, "a token of RFC 9110"),
        ({"A:": "x"}, "a token of RFC 9110"),
        ({"A\r\n": "x"}, "a token of RFC 9110"),
        ({"": "x"}, "a token of RFC 9110"),
        ({"X-A": "x", "x-a": "y"}, "named twice"),
        *[({name: "x"}, "set by whoever connects") for name in ("Host", "content-LENGTH", "Mcp-Session-Id", "TE")],
        *[({"Proxy-Authorization": "x"}, "set by whoever connects")],
        *[
            ({"A": value}, "printable ASCII without spaces around")
            for value in ("", f"{CANARY}\r\nX: 1", f" {CANARY}", f"{CANARY} ", f"{CANARY}\n", "ü", "a\tb")
        ],
        ({"A": CANARY * 2000}, "at most 32768 bytes"),
    ],
)
def test_what_is_no_header(headers: Any, why: str) -> None:
    message = refused({**TARGET, "headers": headers})
    assert why in message
    assert CANARY not in message


@pytest.mark.parametrize("name", ["", "X", "-x", "a b", "a/b", "..", "x" * 41, "ä", "a\n"])
def test_what_is_no_name(name: str) -> None:
    assert "pattern" in refused({**STARTED, "name": name})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "name one of `template`, `command` and `url`"),
        ({"name": "x"}, "name one of"),
        ({**STARTED, "template": "time"}, "name one of"),
        ({**STARTED, **TARGET}, "leave the others out"),
        ({**STARTED, "headers": {}}, "leave the others out"),
        ({**TARGET, "env": {}}, "leave the others out"),
        ({"command": ["x"]}, "needs a `name`"),
        ({"template": "none"}, "GET /api/mcp/templates lists them"),
        ({"template": "postgres"}, "needs DATABASE_URI in `env`"),
        ({"template": "postgres", "env": {"DATABASE_URI": "", "A": CANARY}}, "needs DATABASE_URI in `env`"),
        ({"template": "postgres", "headers": {"DATABASE_URI": CANARY}}, "takes `env`, and no `headers`"),
        ({"template": "github", "env": {"Authorization": CANARY}}, "takes `headers`, and no `env`"),
        ({"template": "github", "headers": {"X-A": CANARY}}, "needs Authorization in `headers`"),
        ({**STARTED, "permission": "always"}, "'allow', 'ask' or 'deny'"),
        ({**STARTED, "shell": True}, "not permitted"),
    ],
)
def test_what_is_no_server(body: dict[str, Any], why: str) -> None:
    message = refused(body)
    assert why in message
    assert CANARY not in message


def test_a_change_is_of_one_transport() -> None:
    assert "leave the others out" in refused({"env": {}, "url": TARGET["url"]}, ServerUpdate)
    for body, transport in (
        ({"command": ["x"]}, "stdio"),
        ({"env": {}}, "stdio"),
        ({"url": TARGET["url"]}, "http"),
        ({"headers": {}}, "http"),
        ({"enabled": False}, None),
        ({}, None),
    ):
        assert ServerUpdate.model_validate(body).change().transport == transport


def test_every_template_makes_a_server_of_what_it_names() -> None:
    assert {"fetch", "filesystem", "git", "github", "postgres", "sqlite"} <= TEMPLATES.keys()
    for name, template in TEMPLATES.items():
        shown = TemplateOut.model_validate(template)
        assert shown.description.endswith(".")
        field = "env" if shown.transport == "stdio" else "headers"
        secrets = dict.fromkeys(getattr(shown, field), CANARY)
        new = ServerCreate.model_validate({"template": name, field: secrets}).new()
        assert (new.name, new.target, new.secrets) == (name, shown.command or shown.url, secrets)
        again = {"name": "own", "command": shown.command, "url": shown.url, field: secrets}
        assert ServerCreate.model_validate(again).new().target == new.target, "it keeps the rules for everybody"
        named = ServerCreate.model_validate({"template": name, "name": "own", field: secrets, "permission": "deny"})
        assert (named.new().name, named.new().permission) == ("own", "deny")


def test_secrets_are_not_in_what_a_body_looks_like() -> None:
    body = ServerCreate.model_validate({**STARTED, "env": {"TOKEN": CANARY}})
    assert CANARY not in repr(body) + body.model_dump_json()
    assert set(ServerOut.model_fields) & {"sealed", "secrets", "target"} == set()
