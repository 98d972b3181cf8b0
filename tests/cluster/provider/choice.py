"""The order in which clusters are tried."""

from __future__ import annotations

from tests.cluster.provider import bare, kind, named
from tests.cluster.provider.base import Cluster


class NoCluster(Exception):
    """There is no cluster here; the message holds each way's reason."""


def choose() -> Cluster:
    """Return the first cluster that can be had.

    Raises
    ------
    NoCluster
        None can.
    ProviderError
        One is there or could be, and does not work.
    """
    reasons: list[str] = []
    for find in (named.find, kind.find, bare.find):
        found = find()
        if isinstance(found, Cluster):
            return found
        reasons.append(found)
    raise NoCluster("no Kubernetes cluster for tests: " + "; ".join(reasons))


def delete() -> bool:
    """Delete the clusters that were made here, and tell whether there was any; one given by kubeconfig stays."""
    return any([kind.delete(), bare.delete()])
