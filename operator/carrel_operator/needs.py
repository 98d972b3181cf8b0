"""What a kernel pod needs of its cluster beside room; read from the pod, since its class may have changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_EVERYWHERE: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
"""Resources that every node has."""


@dataclass(frozen=True)
class Needs:
    """Names of things that somebody else provides."""

    datasets: tuple[tuple[str, str], ...] = ()
    """Data sets and their PersistentVolumeClaims."""
    authorities: str | None = None
    """ConfigMap with further certificate authorities."""
    pull_secrets: tuple[str, ...] = ()
    runtime_class: str | None = None
    user_namespace: bool = False
    devices: tuple[tuple[str, str], ...] = ()
    """Extended resources, such as GPUs, and how many."""

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Needs:
        """Return what a pod with this spec needs."""
        limits: Mapping[str, str] = {}
        mounted: dict[str, str] = {}
        for container in spec.get("containers", []):
            limits = container.get("resources", {}).get("limits", {})
            mounted = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
        volumes: list[Mapping[str, Any]] = spec.get("volumes") or []
        secrets: list[Mapping[str, str]] = spec.get("imagePullSecrets") or []
        return cls(
            datasets=tuple(
                (mounted[volume["name"]].rpartition("/")[2], volume["persistentVolumeClaim"]["claimName"])
                for volume in volumes
                if volume["name"].startswith("dataset-") and volume["name"] in mounted
            ),
            authorities=next((v["configMap"]["name"] for v in volumes if v["name"] == "authorities"), None),
            pull_secrets=tuple(secret["name"] for secret in secrets),
            runtime_class=spec.get("runtimeClassName"),
            user_namespace=spec.get("hostUsers") is False,
            devices=tuple((name, amount) for name, amount in limits.items() if name not in _EVERYWHERE),
        )
