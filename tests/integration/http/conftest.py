"""One gateway per test module, a client with its key, and a new session per test."""

from __future__ import annotations

import pytest
from tests.support.serving import SALES
from tests.support.serving import gateway as running_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("gateway") / "data", CARREL_UPLOAD_MAX_BYTES="2000000") as started:
        yield started


@pytest.fixture(scope="module")
def api(gateway):
    with gateway.client() as client:
        yield client


@pytest.fixture
def session(api):
    made = api.post("/api/sessions", json={"title": "Sales"})
    assert made.status_code == 201, made.text
    session_id = made.json()["id"]
    yield f"/api/sessions/{session_id}"
    api.delete(f"/api/sessions/{session_id}")


@pytest.fixture
def sales(api, session):
    stored = api.post(f"{session}/files", files={"file": ("sales.csv", SALES.encode(), "text/csv")})
    assert stored.status_code == 201, stored.text
    return stored.json()["items"][0]
