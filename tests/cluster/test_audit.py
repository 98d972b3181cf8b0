"""The API server's audit log as tests read it.

Plan: what is a write and what is not; a mark holds over a line that is being written and over a log that became full,
and not longer; without a cluster so far. On the cluster, a write is found under the user, verb, resource and name that
did it, a refused one with its status, and reading leaves no trace.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator.sessions import eventually
from tests.cluster.provider.base import Cluster, KubectlError
from tests.support.audit import AuditLog, AuditLost, Write, parse, service_account, tally


def event(name: str, **changed: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "stage": "ResponseComplete",
        "verb": "patch",
        "requestURI": f"/api/v1/namespaces/a/pods/{name}/status?fieldManager=x",
        "user": {"username": "system:serviceaccount:b:operator"},
        "objectRef": {"resource": "pods", "subresource": "status", "namespace": "a", "name": name},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-11-29T12:00:00.250000Z",
        "stageTimestamp": "2026-11-29T12:00:00.500000Z",
    }
    return {**whole, **changed}


def append(path: Path, *names: str) -> None:
    with path.open("a") as log:
        log.writelines(json.dumps(event(name)) + "\n" for name in names)


def names(log: AuditLog, mark: Any) -> list[str]:
    return [write.name for write in log.since(mark)]


def test_a_write_has_its_user_resource_and_times():
    write = parse(event("pod-1"))
    assert write is not None
    assert (write.user, write.verb, write.resource) == (service_account("b", "operator"), "patch", "pods/status")
    assert (write.namespace, write.name, write.code, write.accepted) == ("a", "pod-1", 200, True)
    assert (write.completed - write.received).total_seconds() == 0.25
    refused = parse(event("pod-1", responseStatus={"code": 409}))
    assert refused is not None
    assert not refused.accepted


@pytest.mark.parametrize(
    "changed",
    [{"verb": "watch"}, {"stage": "RequestReceived"}, {"requestURI": "/api/v1/namespaces/a/pods?dryRun=All"}],
)
def test_what_stores_nothing_is_no_write(changed: dict[str, str]):
    assert parse(event("pod-1", **changed)) is None


def test_a_mark_holds_over_an_unfinished_line_and_a_full_log(tmp_path: Path):
    path = tmp_path / "audit.log"
    append(path, "before")
    log = AuditLog(path)
    mark = log.mark()
    append(path, "first")
    with path.open("a") as unfinished:
        unfinished.write('{"stage": "Resp')
    assert names(log, mark) == ["first"]
    path.write_text("")
    append(path, "before", "first", "second")
    path.rename(tmp_path / "audit-2026-11-29T12-00-00.000.log")
    append(path, "third")
    assert names(log, mark) == ["first", "second", "third"]
    (tmp_path / "audit-2026-11-29T12-00-00.000.log").unlink()
    with pytest.raises(AuditLost, match="filled more than once"):
        names(log, mark)


def test_writes_are_counted_by_verb_and_resource():
    found = [write for name in ("a", "b") if (write := parse(event(name)))]
    assert tally(found) == {("patch", "pods/status"): 2}


def test_what_kubectl_writes_is_found_and_what_it_reads_is_not(cluster: Cluster, namespace: str, audit: AuditLog):
    mark = audit.mark()
    where = f"--namespace={namespace}"
    cluster.get("configmaps", where)
    cluster.kubectl("create", "configmap", "one", where)
    cluster.kubectl("create", "configmap", "never", where, "--dry-run=server")
    with pytest.raises(KubectlError, match="already exists"):
        cluster.kubectl("create", "configmap", "one", where)
    cluster.kubectl("delete", "configmap", "one", where)
    found = own(audit, mark, namespace, lambda writes: len(writes) >= 3)
    assert [(write.verb, write.name, write.code) for write in found] == [
        ("create", "one", 201),
        ("create", "one", 409),
        ("delete", "one", 200),
    ]
    assert all(0 <= (write.completed - write.received).total_seconds() < 60 for write in found)
    assert len({write.user for write in found}) == 1
    assert abs(found[0].completed.timestamp() - time.time()) < 600


def own(audit: AuditLog, mark: Any, namespace: str, enough: Callable[[list[Write]], bool]) -> list[Write]:
    """The writes of ConfigMaps in a namespace, but for the one that every namespace gets."""
    found: list[Write] = []

    def holds() -> bool:
        writes = (write for write in audit.since(mark) if write.namespace == namespace)
        found[:] = [write for write in writes if write.resource == "configmaps" and write.name != "kube-root-ca.crt"]
        return enough(found)

    eventually("the log has the writes", holds)
    return found
