"""Kubeconfigs of service accounts, for programs that run beside a cluster with no more rights than inside it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tests.cluster.provider.base import Cluster

HOURS = 12


def kubeconfig_of(cluster: Cluster, namespace: str, account: str, path: Path) -> Path:
    """Write a kubeconfig with a token of the service account, and return its path."""
    admin = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(one["context"] for one in admin["contexts"] if one["name"] == admin["current-context"])
    server = next(one for one in admin["clusters"] if one["name"] == context["cluster"])
    token = cluster.kubectl("create", "token", account, f"--namespace={namespace}", f"--duration={HOURS}h").strip()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [server],
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": server["name"], "user": account, "namespace": namespace}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))
    return path
