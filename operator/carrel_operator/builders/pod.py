"""The kernel pod: always under the restricted Pod Security Standard, whatever the session and its class say."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from carrel_api import names
from carrel_api.quantities import millicpus, number_of_bytes
from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClassSpec, Toleration
from carrel_api.session_pool import SessionPool
from carrel_operator.builders.environment import authorities_mount, authorities_volume, class_environment
from carrel_operator.builders.identity import (
    Manifest,
    claim_name,
    hash_of,
    owner_reference,
    pod_name,
    session_labels,
    session_metadata,
)
from carrel_operator.observed import PodView
from carrel_operator.settlement import Settlement

WORKSPACE: Final = "/workspace"
HOME: Final = "/home/carrel"
TEMPORARY: Final = "/tmp"  # noqa: S108 (a path inside the pod, on a volume of its own)
KEYS: Final = "/etc/carrel/keys"
DATASETS: Final = "/datasets"

TEMPORARY_SIZE: Final = "1Gi"
HOME_SIZE: Final = "256Mi"
"""Caches of libraries and matplotlib's fonts; work belongs into the workspace."""
GRACE_SECONDS: Final = 15
"""The kernel host gives its kernels 5 s to end, and needs some itself."""
REQUESTED_SHARE: Final = 10
"""Of CPU and node storage a tenth of the limit is requested: kernels mostly wait for people."""

UNMOVABLE: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"
"""Annotation by which an autoscaler knows whether it may empty the node."""

SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
LIVENESS: Final[Manifest] = {
    "httpGet": {"path": "/healthz", "port": names.KERNEL_PORT},
    "initialDelaySeconds": 15,
    "periodSeconds": 20,
    "timeoutSeconds": 10,
    "failureThreshold": 6,  # two minutes: restarting loses the variables, so only what surely hangs
}


def kernel_pod(session: AgentSession, settled: Settlement, cold_start_reason: str | None = None) -> Manifest:
    """Return the pod of a session that starts cold; it keeps the reason, whatever becomes of who made it."""
    spec = pod_spec(settled, claim_name(session) if session.spec.workspace.type == "Persistent" else None)
    metadata = session_metadata(session, pod_name(session), labels=_labels(settled, spec))
    # what runs here cannot be moved without losing variables
    annotations = {UNMOVABLE: "false"} | ({names.COLD_START_ANNOTATION: cold_start_reason} if cold_start_reason else {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "annotations": annotations}, "spec": spec}


def pool_pod(pool: SessionPool, settled: Settlement) -> Manifest:
    """Return a pod that is nobody's yet; its name is the server's choice."""
    spec = pod_spec(settled)
    metadata = {
        "generateName": f"{pool.metadata.name}-",
        "namespace": pool.metadata.namespace,
        "labels": {
            names.MANAGED_BY_LABEL: names.MANAGER,
            names.POOL_LABEL: hash_of(pool.metadata.uid),
            **_labels(settled, spec),
        },
        "annotations": {UNMOVABLE: "true"},
        "ownerReferences": [owner_reference(names.POOL_KIND, pool.metadata)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def claim_patch(session: AgentSession, pod: PodView, now: datetime) -> list[Manifest]:
    """Return the JSON patch (RFC 6902) that makes a pool's pod the session's; it fails if anybody changed the pod."""
    labels = {
        **{key: value for key, value in pod.labels.items() if key != names.POOL_LABEL},
        **session_labels(session),
        names.CLAIMED_LABEL: pod.pool or "",
    }
    return [
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.version},
        {"op": "replace", "path": "/metadata/labels", "value": labels},
        {
            "op": "replace",
            "path": "/metadata/ownerReferences",
            "value": [owner_reference(names.SESSION_KIND, session.metadata)],
        },
        {"op": "replace", "path": _annotation(UNMOVABLE), "value": "false"},
        {"op": "add", "path": _annotation(names.CLAIMED_ANNOTATION), "value": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
    ]


def _annotation(name: str) -> str:
    return f"/metadata/annotations/{name.replace('/', '~1')}"


def revision_of(spec: Manifest) -> str:
    """Return the hash of a pod's spec: two pods with the same one are the same but for whose they are."""
    return hash_of(json.dumps(spec, sort_keys=True))


def pod_spec(settled: Settlement, workspace_claim: str | None = None) -> Manifest:
    """Return the spec of a kernel pod; nothing in it is a person's own but the claim of a persistent workspace."""
    return {
        **_placement(settled.allowed),
        "restartPolicy": "OnFailure",  # the workspace survives the container; the operator binds again
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": _security(settled.allowed),
        "containers": [_container(settled)],
        "volumes": _volumes(settled, workspace_claim),
    }


def _labels(settled: Settlement, spec: Manifest) -> dict[str, str]:
    return {
        names.COMPONENT_LABEL: names.KERNEL_COMPONENT,
        names.CLASS_LABEL: settled.class_name,
        names.REVISION_LABEL: revision_of(spec),
    }


def _placement(allowed: SessionClassSpec) -> Manifest:
    """Return the parts of the spec that a class may leave out."""
    parts: dict[str, Any] = {
        "runtimeClassName": allowed.runtime_class_name,
        "priorityClassName": allowed.priority_class_name,
        "nodeSelector": dict(allowed.node_selector),
        "tolerations": [_toleration(toleration) for toleration in allowed.tolerations],
        "imagePullSecrets": [{"name": name} for name in allowed.pull_secrets],
    }
    placement = {key: value for key, value in parts.items() if value}
    if allowed.user_namespace == "Required":
        placement["hostUsers"] = False
    return placement


def _toleration(toleration: Toleration) -> Manifest:
    return {key: value for key, value in toleration.dump().items() if value != ""}


def _security(allowed: SessionClassSpec) -> Manifest:
    context: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if allowed.run_as_user is not None:
        user = allowed.run_as_user
        context |= {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return context


def _container(settled: Settlement) -> Manifest:
    return {
        "name": names.KERNEL_CONTAINER,
        "image": settled.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "CARREL_KERNEL_HOST_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "CARREL_KERNEL_KEYS", "value": f"{KEYS}/{names.KEYS_FILE}"},
            {"name": "CARREL_KERNEL_LISTEN", "value": f"tcp:0.0.0.0:{names.KERNEL_PORT}"},
            # no port of the pod's: nobody is to reach it, and who does has seen that policies are not enforced
            {"name": "CARREL_KERNEL_CLOSED_LISTEN", "value": f"tcp:0.0.0.0:{names.CLOSED_PORT}"},
            {"name": "CARREL_KERNEL_WORKSPACE", "value": WORKSPACE},
            {"name": "CARREL_KERNEL_PRELOAD", "value": ",".join(settled.allowed.kernels.preload)},
            *_allowed_imports(settled.allowed),
            {"name": "CARREL_KERNEL_SPARE_KERNELS", "value": str(settled.allowed.kernels.spare)},
            *class_environment(settled.allowed),
            {"name": "HOME", "value": HOME},
            {"name": "MPLCONFIGDIR", "value": f"{HOME}/matplotlib"},
        ],
        "ports": [{"name": "kernel", "containerPort": names.KERNEL_PORT, "protocol": "TCP"}],
        "resources": _resources(settled),
        "securityContext": SECURITY,
        "livenessProbe": LIVENESS,
        "volumeMounts": [
            {"name": "workspace", "mountPath": WORKSPACE},
            {"name": "home", "mountPath": HOME},
            {"name": "tmp", "mountPath": TEMPORARY},
            {"name": "keys", "mountPath": KEYS, "readOnly": True},
            *authorities_mount(settled.allowed),
            *(
                {"name": f"dataset-{index}", "mountPath": f"{DATASETS}/{dataset.name}", "readOnly": True}
                for index, dataset in enumerate(settled.datasets)
            ),
        ],
    }


def _allowed_imports(allowed: SessionClassSpec) -> list[Manifest]:
    modules = allowed.kernels.allowed_imports
    return [{"name": "CARREL_KERNEL_ALLOWED_IMPORTS", "value": ",".join(modules)}] if modules else []


def _resources(settled: Settlement) -> Manifest:
    cpu = max(millicpus(settled.cpu) // REQUESTED_SHARE, 1)
    storage = max(number_of_bytes(settled.ephemeral_storage) // REQUESTED_SHARE, 1)
    limits = {"cpu": settled.cpu, "memory": settled.memory, "ephemeral-storage": settled.ephemeral_storage}
    requests = {"cpu": f"{cpu}m", "memory": settled.memory, "ephemeral-storage": str(storage)}
    if settled.gpu:
        limits[settled.allowed.gpu_resource_name] = str(settled.gpu)
    return {"limits": limits, "requests": requests}


def _volumes(settled: Settlement, workspace_claim: str | None) -> list[Manifest]:
    workspace: Manifest = (
        {"persistentVolumeClaim": {"claimName": workspace_claim}}
        if workspace_claim is not None
        else {"emptyDir": {"sizeLimit": settled.workspace_size}}
    )
    return [
        {"name": "workspace", **workspace},
        {"name": "home", "emptyDir": {"sizeLimit": HOME_SIZE}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TEMPORARY_SIZE}},
        {"name": "keys", "configMap": {"name": names.KEYS_CONFIG_MAP, "defaultMode": 0o444}},
        *authorities_volume(settled.allowed),
        *(
            {
                "name": f"dataset-{index}",
                "persistentVolumeClaim": {"claimName": dataset.claim_name, "readOnly": True},
            }
            for index, dataset in enumerate(settled.datasets)
        ),
    ]
