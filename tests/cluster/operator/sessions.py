"""AgentSessions of one test: made, read, waited for, deleted."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from tests.cluster.provider.base import Cluster, KubectlError

SECONDS = 120.0
CROWD = 100


def eventually(what: str, holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


class Sessions:
    """Sessions in one namespace and, unless told otherwise, one class."""

    def __init__(self, cluster: Cluster, namespace: str, class_name: str) -> None:
        self.cluster, self.namespace, self.class_name = cluster, namespace, class_name
        self._made: list[str] = []

    def create(self, **spec: Any) -> str:
        """Make a session and return its name."""
        return self.create_many(1, **spec)[0]

    def create_many(self, count: int, **spec: Any) -> list[str]:
        """Make sessions by one call, and return their names."""
        made = [f"desk-{secrets.token_hex(4)}" for _ in range(count)]
        self._made += made
        self.cluster.apply(
            *(
                {
                    "apiVersion": "carrel.dev/v1alpha1",
                    "kind": "AgentSession",
                    "metadata": {"name": name, "namespace": self.namespace},
                    "spec": {"className": self.class_name, **spec},
                }
                for name in made
            )
        )
        return made

    def patch(self, name: str, spec: str) -> None:
        """Merge a JSON text into the session's spec."""
        self.cluster.patch("agentsession", name, {"spec": json.loads(spec)}, namespace=self.namespace)

    def delete(self, name: str) -> None:
        """Delete the session and wait until it is gone."""
        self.cluster.delete("agentsession", name, namespace=self.namespace)
        self._made.remove(name)

    def delete_all(self) -> None:
        """Delete what is left; a crowd all at once, which kubectl would do one after the other."""
        if len(self._made) > CROWD:
            group = f"/apis/carrel.dev/v1alpha1/namespaces/{self.namespace}/agentsessions"
            self.cluster.kubectl("delete", f"--raw={group}")
        elif self._made:
            self.cluster.delete("agentsession", *self._made, namespace=self.namespace)

    def get(self, name: str) -> dict[str, Any]:
        """Return the session."""
        return self.cluster.get("agentsession", name, "-n", self.namespace)

    def exists(self, kind: str, name: str) -> bool:
        """Return whether the object is there."""
        return self.cluster.find(kind, name, "-n", self.namespace) is not None

    def status(self, name: str) -> dict[str, Any]:
        """Return the session's status."""
        return self.get(name).get("status", {})

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        """Return one condition, empty where it is not there."""
        found = self.status(name).get("conditions", [])
        return next((condition for condition in found if condition["type"] == kind), {})

    def wait(self, name: str, *, reason: str, kind: str = "Ready") -> dict[str, Any]:
        """Wait until the condition has the reason, and return it."""
        said: list[Any] = [None]

        def holds() -> bool:
            said[0] = self.condition(name, kind)
            return said[0].get("reason") == reason

        try:
            eventually(f"{kind} with reason {reason}", holds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {said[0]}") from error
        return said[0]

    def ready(self, name: str) -> dict[str, Any]:
        """Wait until the session is ready, and return its status."""
        self.wait(name, reason="Bound")
        return self.status(name)

    def pod(self, name: str) -> dict[str, Any]:
        """Return the session's pod."""
        return self.cluster.get("pod", self.status(name)["podName"], "-n", self.namespace)

    def gone(self, name: str) -> bool:
        """Return whether the session is no longer there."""
        try:
            return not self.exists("agentsession", name)
        except KubectlError:
            return False
