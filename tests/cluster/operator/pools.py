"""SessionPools of one test, and what happens to their pods meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster.operator.sessions import eventually
from tests.cluster.provider.base import Cluster

from carrel_api.names import POOL_LABEL
from carrel_operator.builders.identity import hash_of


@dataclass(frozen=True)
class Pool:
    """One pool, of a class that nothing else uses."""

    name: str
    class_name: str
    uid: str

    @property
    def selector(self) -> str:
        """What selects the pods that nobody has claimed."""
        return f"{POOL_LABEL}={hash_of(self.uid)}"


class Pools:
    """Pools in one namespace."""

    def __init__(
        self, cluster: Cluster, namespace: str, class_of: Callable[[str, dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._class_of = class_of
        self._made: list[str] = []

    def create(self, class_spec: dict[str, Any] | None = None, **spec: Any) -> Pool:
        """Make a pool and its class, both of one name."""
        name = f"warm-{secrets.token_hex(4)}"
        self._made.append(name)
        self.change_class(name, class_spec or {})
        metadata = {"name": name, "namespace": self.namespace}
        document = {"apiVersion": "carrel.dev/v1alpha1", "kind": "SessionPool", "metadata": metadata}
        self.cluster.apply({**document, "spec": {"className": name, **spec}})
        return Pool(name, name, self.get(name)["metadata"]["uid"])

    def change_class(self, name: str, spec: dict[str, Any]) -> None:
        """Have the class of the name say this."""
        self.cluster.apply(self._class_of(name, spec))

    def get(self, name: str) -> dict[str, Any]:
        """Return the pool."""
        return self.cluster.get("sessionpool", name, "-n", self.namespace)

    def status(self, name: str) -> dict[str, Any]:
        """Return the pool's status."""
        return self.get(name).get("status", {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """Return one condition, empty where it is not there."""
        found = self.status(name).get("conditions", [])
        return next((condition for condition in found if condition["type"] == kind), {})

    def wait(self, name: str, **counts: int) -> None:
        """Wait until status has these counts."""
        said: list[Any] = [None]

        def holds() -> bool:
            said[0] = self.status(name)
            return all(said[0].get(what, 0) == count for what, count in counts.items())

        try:
            eventually(f"pool {name} with {counts}", holds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {said[0]}") from error

    def pods(self, pool: Pool) -> list[dict[str, Any]]:
        """Return the pods that nobody has claimed and that are not being deleted."""
        found = self.cluster.get("pods", "-n", self.namespace, f"--selector={pool.selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def delete_all(self) -> None:
        """Delete all, and their classes."""
        if self._made:
            self.cluster.delete("sessionpool", *self._made, namespace=self.namespace)
            self.cluster.delete("sessionclass", *self._made)
