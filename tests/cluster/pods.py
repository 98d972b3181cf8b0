"""Pods that run a few lines of Python in the product's kernel image, under the restricted Pod Security Standard."""

from __future__ import annotations

from typing import Any

from tests.cluster.provider.base import Cluster

RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def python_pod(
    name: str, code: str, *, image: str, labels: dict[str, str] | None = None, claim: str | None = None
) -> dict[str, Any]:
    """Return a pod that runs `code` once; `claim` is mounted at /workspace."""
    volume: dict[str, Any] = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    container = {
        "name": "python",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", code],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "workspace", **volume}],
        },
    }


def wait_ready(cluster: Cluster, namespace: str, name: str, seconds: int = 60) -> str:
    """Wait until a pod is Ready; return its address."""
    where = f"--namespace={namespace}"
    cluster.kubectl("wait", where, f"pod/{name}", "--for=condition=Ready", f"--timeout={seconds}s")
    return cluster.get("pod", name, where)["status"]["podIP"]


def output(cluster: Cluster, namespace: str, name: str, seconds: int = 60) -> str:
    """Wait until a pod has succeeded; return what it printed. A failed pod raises with its log."""
    where = f"--namespace={namespace}"
    done = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
    cluster.kubectl("wait", where, f"pod/{name}", done, f"--timeout={seconds}s")
    log = cluster.kubectl("logs", where, name)
    [status] = cluster.get("pod", name, where)["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 0, f"{status['state']}\n{log}"
    return log
