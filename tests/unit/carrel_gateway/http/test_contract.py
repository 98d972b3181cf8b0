"""The OpenAPI document as a contract.

Plan: each operation declares problems, with codes, for what anything can get and for what it can get itself; the
framework's own form of errors is gone; 429 and 503 say when to come again; every code in the source is declared for
some operation or is known to reach nobody; the page of the API names every declared code, under its status; the check
of the HTTP tests finds an answer that nobody declared.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.support import contract as support

from carrel_gateway.web import contract, openapi

ROOT = Path(__file__).parents[4]
DOCUMENT = support.document()
OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
KERNEL_HOSTS = {*contract._HOST, *contract._HOST_STATE}
INTERNAL = {
    # the process does not start, and says so in one line
    "exposed_local_executor", "key_file_unusable", "cannot_listen", "invalid_redis_url", "invalid_database_url",
    "schema_mismatch", "migration_failed", "data_folder_in_use", "data_folder_unusable", "secret_keys_unusable",
    "invalid_settings", "oidc_settings_unusable", "mail_settings_unusable", "admin_address_unusable",
    "credentials_unusable", "connection_string_unusable",
    # between parts of the gateway; whoever asks turns them into something else
    "stale_run", "stale_job", "bus_away", "snapshot_not_found", "unsealable", "not_yet", "waking",
    # frames of the WebSocket
    "unknown_frame",
}  # fmt: skip


def declared() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {status: set(codes) for status, codes in contract.OFF_THE_TABLE.items()}
    for _, _, operation in OPERATIONS:
        for status in operation["responses"]:
            found.setdefault(int(status), set()).update(openapi.codes_of(operation, int(status)))
    return found


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{method} {path}" for method, path, _ in OPERATIONS]
)
def test_every_operation_declares_its_problems(method, path, operation):
    for status, codes in contract.EVERYWHERE.items():
        assert openapi.codes_of(operation, status) >= set(codes)
    if "security" in operation:
        assert "unauthenticated" in openapi.codes_of(operation, 401)
    if "session_id" in path:
        assert "session_not_found" in openapi.codes_of(operation, 404)
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            assert "application/problem+json" in response["content"]
        if (status in {"202", "429", "503"} and method != "post") or status in {"429", "503"}:
            assert "Retry-After" in response["headers"]
    assert any(status[0] in "23" for status in operation["responses"])


def test_what_stands_below_a_field_describes_it():
    schemas = DOCUMENT["components"]["schemas"]
    own = schemas["SessionOut"]["properties"]
    assert own["last_seq"]["description"] == "Number of the last event of its log."
    assert "description" not in own["title"]
    made = schemas["KeyMade"]["properties"]
    assert made["hint"]["description"] == "Its last characters."  # of the class that it comes from
    assert made["key"]["description"].startswith("What to present.")


def test_the_frameworks_own_errors_are_gone():
    assert "HTTPValidationError" not in str(DOCUMENT)
    assert set(DOCUMENT["components"]["schemas"]["Problem"]["required"]) >= {"code", "detail", "status"}


def test_every_code_of_the_source_is_declared():
    pattern = re.compile(r'\bcode(?:: str)? ?= ?"([a-z_]+)"')
    sources = (ROOT / "gateway" / "carrel_gateway").rglob("*.py")
    texts = [source.read_text("utf-8") for source in sources if "agents" not in source.parts]
    found = {code for text in texts for code in pattern.findall(text)}
    assert len(found) > 50
    known = {code for codes in declared().values() for code in codes}
    assert found - known - INTERNAL == set()
    assert INTERNAL - found == set()


def test_the_page_names_every_code_under_its_status():
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", page, re.MULTILINE)
    for status, codes in declared().items():
        named = {code for found, row in rows if found == str(status) for code in re.findall(r"`([a-z_]+)`", row)}
        assert codes - KERNEL_HOSTS - named == set(), status
    for status, row in re.findall(r"^\| (\d{3}) \| (.*) \|$", page.partition("## Problems")[2], re.MULTILINE):
        members = {"reason", "rate", "quota", "run_id", "errors", "field", "message", "detail", "first_status", "right"}
        named = set(re.findall(r"`([a-z_]+)`", row)) - members
        assert named - declared().get(int(status), set()) - KERNEL_HOSTS == set(), status


def answer(method, path, status, **problem):
    request = httpx.Request(method, f"http://carrel.test{path}")
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, json={"status": status, **problem}, headers=headers, request=request)


def test_an_answer_that_is_not_declared_is_found():
    support.check(answer("GET", "/api/sessions", 400, code="invalid_cursor"))
    support.check(answer("GET", "/nothing", 404, code="route_not_found"))
    for method, path, status, code in (
        ("GET", "/api/sessions", 400, "never_heard"),
        ("GET", "/api/sessions", 418, "invalid_cursor"),
        ("GET", "/nothing", 404, "session_not_found"),
        ("GET", "/api/sessions", 503, "unavailable"),  # without Retry-After
    ):
        with pytest.raises((AssertionError, KeyError)):
            support.check(answer(method, path, status, code=code))
    redirect = httpx.Response(307, request=httpx.Request("GET", "http://carrel.test/api/sessions"))
    with pytest.raises(AssertionError, match="does not declare 307"):
        support.check(redirect)
