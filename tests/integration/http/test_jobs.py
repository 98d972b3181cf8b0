"""Background jobs over HTTP.

Plan: what a gateway does by itself is listed, by filters and pages, and shown; what is over is not cancelled, what has
succeeded is not tried again; what waits is cancelled and tried again, by its tenant alone, and that is in the audit
log; cursors and ids that are none are refused; its health says that jobs are looked for.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.support.inside import inside
from tests.support.people import new_key
from tests.support.state import new_principal

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.jobs.service import JobService
from carrel_gateway.settings import Settings

NOBODYS = "01a22ed5-0211-7069-947d-42fd1fef0878"
"""Id of no job."""


def listed(api: Any, **params: Any) -> list[dict[str, Any]]:
    return api.get("/api/jobs", params=params).json()["items"]


@pytest.fixture
def done(api):
    """The job that plans the others, which a gateway does when it starts."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := listed(api, kind="jobs.plan", status="succeeded"):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(listed(api))


def test_jobs_are_listed_and_shown(api, done):
    assert api.get(f"/api/jobs/{done['id']}").json() == done
    assert (done["attempts"], done["generation"], done["error_code"]) == (1, 1, None)
    assert done["result"]["tenants_failed"] == 0
    kinds = {job["kind"] for job in listed(api, limit=200)}
    assert {"sessions.remove", "kernels.release", "workspaces.purge", "logins.sweep", "jobs.sweep"} <= kinds
    first = api.get("/api/jobs", params={"limit": 1}).json()
    (second,) = listed(api, limit=1, cursor=first["next_cursor"])
    assert second["id"] < first["items"][0]["id"]
    assert listed(api, kind="unknown") == []
    assert api.get("/health/ready").json()["parts"]["jobs"]["status"] == "ok"


def test_what_is_over_is_left_alone(api, done):
    for act, code in (("cancel", "job_over"), ("retry", "job_live")):
        refused = api.post(f"/api/jobs/{done['id']}/{act}")
        assert (refused.status_code, refused.json()["code"]) == (409, code)
    assert api.get("/api/audit", params={"target": done["id"]}).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/jobs?cursor=x", 400, "invalid_cursor"),
        ("GET", "/api/jobs?status=new", 422, "validation_failed"),
        ("GET", f"/api/jobs/{NOBODYS}", 404, "job_not_found"),
        ("POST", f"/api/jobs/{NOBODYS}/retry", 404, "job_not_found"),
        ("POST", f"/api/jobs/{NOBODYS}/cancel", 404, "job_not_found"),
        ("GET", "/api/jobs/x", 422, "validation_failed"),
    ],
)
def test_refusals(api, method, path, status, code):
    refused = api.request(method, path)
    assert (refused.status_code, refused.json()["code"]) == (status, code)


async def waiting(context: ProcessContext, owner: Principal) -> str:
    """Store a job that no gateway knows how to do."""
    return str(await JobService(context, owner).enqueue("unknown", {"n": 1}))


def test_what_waits_is_cancelled_and_tried_again(tmp_path):
    settings = Settings(_env_file=None, data_dir=tmp_path, spare_kernel_host=False, kernel_preload="")
    with inside(settings) as gateway:
        context = gateway.context
        owner, stranger = (gateway.call(new_principal, context.database) for _ in range(2))
        mine, other = (gateway.call(new_key, context.database, who)[0] for who in (owner, stranger))
        path = f"/api/jobs/{gateway.call(waiting, context, owner)}"
        cancelled = gateway.request("POST", f"{path}/cancel", credential=mine).json()
        assert (cancelled["status"], cancelled["payload"], cancelled["cancel_requested"]) == (
            "cancelled",
            {"n": 1},
            True,
        )
        retried = gateway.request("POST", f"{path}/retry", credential=mine)
        queued = retried.json()
        assert (queued["status"], queued["attempts"], queued["cancel_requested"]) == ("queued", 0, False)
        assert queued["request_id"] == retried.headers["x-request-id"]
        assert gateway.request("GET", path, credential=mine).json() == queued
        for method, what in (("GET", path), ("POST", f"{path}/cancel"), ("POST", f"{path}/retry")):
            refused = gateway.request(method, what, credential=other)
            assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
        told = gateway.request("GET", f"/api/audit?target={queued['id']}", credential=mine).json()["items"]
        assert [(entry["action"], entry["detail"]) for entry in told] == [
            ("job.retried", {"kind": "unknown"}),
            ("job.cancelled", {"kind": "unknown"}),
        ]
