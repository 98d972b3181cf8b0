"""The checker of the restricted standard finds each breach: a good pod, broken in one field at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.support.pod_security import violations

GOOD: dict[str, Any] = {
    "metadata": {},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "c",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}

BREACHES: list[tuple[str, Any]] = [
    ("spec.hostNetwork", True),
    ("spec.hostPID", True),
    ("spec.hostIPC", True),
    ("spec.os", {"name": "windows"}),
    ("spec.containers", []),
    ("spec.volumes.0", {"name": "v", "hostPath": {"path": "/"}}),
    ("spec.volumes.0", {"name": "v", "nfs": {}}),
    ("spec.securityContext.runAsNonRoot", False),
    ("spec.securityContext.runAsUser", 0),
    ("spec.securityContext.seccompProfile", {"type": "Unconfined"}),
    ("spec.securityContext.seccompProfile", {}),
    ("spec.securityContext.sysctls", [{"name": "kernel.msgmax"}]),
    ("spec.securityContext.seLinuxOptions", {"type": "spc_t"}),
    ("spec.securityContext.seLinuxOptions", {"user": "system_u"}),
    ("spec.securityContext.appArmorProfile", {"type": "Unconfined"}),
    ("spec.securityContext.windowsOptions", {"hostProcess": True}),
    ("metadata.annotations", {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}),
    ("spec.containers.0.securityContext.privileged", True),
    ("spec.containers.0.securityContext.allowPrivilegeEscalation", True),
    ("spec.containers.0.securityContext.allowPrivilegeEscalation", None),
    ("spec.containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}),
    ("spec.containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    ("spec.containers.0.securityContext.runAsUser", 0),
    ("spec.containers.0.securityContext.runAsNonRoot", False),
    ("spec.containers.0.securityContext.seccompProfile", {"type": "Unconfined"}),
    ("spec.containers.0.securityContext.procMount", "Unmasked"),
    ("spec.containers.0.ports", [{"containerPort": 1, "hostPort": 1}]),
    ("spec.containers.0.livenessProbe", {"httpGet": {"host": "10.0.0.1"}}),
    ("spec.containers.0.lifecycle", {"preStop": {"tcpSocket": {"host": "10.0.0.1"}}}),
    ("spec.initContainers", [{"name": "i"}]),
    ("spec.ephemeralContainers", [{"name": "e"}]),
]


def test_a_good_pod_breaks_nothing():
    assert violations(GOOD) == []


@pytest.mark.parametrize(("path", "value"), BREACHES, ids=[f"{path}={value}" for path, value in BREACHES])
def test_every_breach_is_found(path: str, value: Any):
    pod = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place: Any = pod
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    place[int(last) if isinstance(place, list) else last] = value
    assert violations(pod) != []
