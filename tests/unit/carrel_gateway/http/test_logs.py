"""Redaction and the form of log lines.

Plan: credentials of every kind that passes here are replaced in texts and in fields, at any depth; a line is one
line of JSON whatever the message holds. The line of a request has the form of the others, and an id that looks like a
credential is replaced there too.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager

import pytest
import structlog
from sqlalchemy import create_engine, text

from carrel_gateway import logs
from carrel_gateway.settings import Settings

SECRETS = {
    "Authorization: Bearer abc.def-ghi": "abc.def-ghi",
    "see http://localhost:8000/#key=crl_0123456789": "crl_0123456789",
    "subprotocol carrel.key.hunter2hunter2": "hunter2hunter2",
    "subprotocol carrel.ticket.hunter2hunter2": "hunter2hunter2",
    "ticket crt_abcdefghijklmnopqrstuvwxyz": "abcdefghijklmnopqrstuvwxyz",
    "key crl_0123456789abcdefghijABCDEFGHIJ used": "crl_0123456789abcdefghijABCDEFGHIJ",
    "refresh crf_0123456789abcdefghijABCDEFGHIJ used": "crf_0123456789abcdefghijABCDEFGHIJ",
    "token eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIwMTkwIn0.c2lnbmF0dXJl": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIwMTkwIn0",
    "mail http://localhost:8000/account#reset=k1.0123": "k1.0123",
    "provider said sk-0123456789abcdefghij is bad": "0123456789abcdefghij",
    "postgresql://carrel:hunter2@db/carrel": "hunter2",
    "GET /x?X-Amz-Signature=0123abcd": "0123abcd",
}


@pytest.mark.parametrize(("written", "secret"), SECRETS.items())
def test_texts(written, secret):
    assert secret not in logs.redact(written)
    assert logs.REDACTED in logs.redact(written)


def test_ordinary_text_stays():
    ordinary = "run 0190 finished in 3 s with 2 artifacts: plots/sales.png"
    assert logs.redact(ordinary) == ordinary


def test_fields_at_any_depth():
    event = {"event": "x", "api_key": "a", "headers": [{"Authorization": "b"}], "count": 3, "nested": {"password": "c"}}
    cleaned = logs.redact_event(None, "info", event)
    assert cleaned == {
        "event": "x",
        "api_key": logs.REDACTED,
        "headers": [{"Authorization": logs.REDACTED}],
        "count": 3,
        "nested": {"password": logs.REDACTED},
    }


@contextmanager
def configured(folder, level="info"):
    # within the test's body: between set-up and body pytest exchanges the standard streams
    root = logging.getLogger()
    handlers, own = root.handlers[:], root.level
    logs.configure(Settings(data_dir=folder, log_format="json", log_level=level))
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(own)
        structlog.reset_defaults()


def test_one_line_of_json(tmp_path, capsys):
    with configured(tmp_path):
        structlog.get_logger("test").info("a\nb\r\x1b[31m", name="c\nd", key="Bearer xyzxyz")
        logging.getLogger("uvicorn.error").error("from the standard library %s", "Bearer xyzxyz")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        "a\nb\r\x1b[31m",
        f"from the standard library Bearer {logs.REDACTED}",
    ]
    assert "xyzxyz" not in "".join(lines)


@pytest.mark.parametrize("level", ["debug", "info"])
def test_what_goes_to_the_database_is_not_logged(tmp_path, capsys, level):
    with configured(tmp_path, level):
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
    assert capsys.readouterr().err == ""


def test_exceptions_are_in_their_line(tmp_path, capsys):
    with configured(tmp_path):
        try:
            int("Bearer xyzxyz")
        except ValueError:
            structlog.get_logger("test").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError" in json.loads(line)["exception"]
    assert "xyzxyz" not in line


@pytest.mark.parametrize("given", [True, False])
def test_the_line_of_a_request_is_like_the_others(tmp_path, capsys, given):
    fields = {"method": "GET", "route": "/api/sessions", "status": 200, "milliseconds": 1.5}
    request_id = "crl_0123456789abcdefghijABCDEFGHIJ" if given else "0123456789abcdef"
    with configured(tmp_path):
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            structlog.get_logger("test").info("request", **fields)
        logs.RequestLog(Settings(data_dir=tmp_path), "test").write(request_id, given=given, **fields)
    one, other = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert len(one.pop("timestamp")) == len(other.pop("timestamp"))
    assert one == other
    assert other["request_id"] == (f"crl_{logs.REDACTED}" if given else request_id)


@pytest.mark.parametrize(("level", "log_format", "lines"), [("warning", "json", 0), ("info", "console", 1)])
def test_the_line_of_a_request_heeds_the_settings(tmp_path, capsys, level, log_format, lines):
    with configured(tmp_path, level):
        log = logs.RequestLog(Settings(data_dir=tmp_path, log_format=log_format), "test")
        log.write("0123", given=False, method="GET", route="/", status=200, milliseconds=0.1)
    assert len(capsys.readouterr().err.splitlines()) == lines
