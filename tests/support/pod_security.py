"""The restricted Pod Security Standard as a checker: written from the standard's text, not from the builders.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and restricted, Kubernetes 1.35).
It covers the fields of the standard for Linux pods; what a cluster's admission adds (exemptions, versions) it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUME_TYPES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
SECCOMP_TYPES = frozenset({"RuntimeDefault", "Localhost"})
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    }
)
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})


def violations(pod: dict[str, Any]) -> list[str]:
    """Return one line for each rule of the restricted standard that the pod breaks."""
    spec = pod["spec"]
    context = spec.get("securityContext", {})
    found = [
        *_pod_wide(pod),
        *(f"volume {volume['name']}: {kind}" for volume in spec.get("volumes", []) for kind in _kinds(volume)),
    ]
    containers = [*spec.get("containers", []), *spec.get("initContainers", []), *spec.get("ephemeralContainers", [])]
    if not containers:
        found.append("no containers")
    for container in containers:
        found += [f"container {container['name']}: {rule}" for rule in _container(container, context)]
    return found


def _kinds(volume: dict[str, Any]) -> set[str]:
    return volume.keys() - {"name"} - VOLUME_TYPES


def _pod_wide(pod: dict[str, Any]) -> Iterator[str]:
    spec = pod["spec"]
    context = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    if spec.get("os", {}).get("name") == "windows":
        yield "windows"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    for key, value in pod.get("metadata", {}).get("annotations", {}).items():
        allowed = value in {"", "runtime/default"} or value.startswith("localhost/")
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not allowed:
            yield f"apparmor {value}"
    yield from _shared(context)


def _shared(context: dict[str, Any]) -> Iterator[str]:
    """Rules for what may stand at the pod and at the container."""
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined":
        yield "appArmorProfile"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in SECCOMP_TYPES:
        yield "seccompProfile"


def _container(container: dict[str, Any], pod_context: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    capabilities = context.get("capabilities", {})
    profile = context.get("seccompProfile", pod_context.get("seccompProfile", {}))
    kept = {
        "privileged must not be set": not context.get("privileged"),
        "allowPrivilegeEscalation must be false": context.get("allowPrivilegeEscalation") is False,
        "procMount must be Default": context.get("procMount", "Default") == "Default",
        "runAsUser must not be 0": context.get("runAsUser") != 0,
        "runAsNonRoot must be true": context.get("runAsNonRoot", pod_context.get("runAsNonRoot")) is True,
        "seccompProfile must be set": profile.get("type") in SECCOMP_TYPES,
        "capabilities.drop must hold ALL": "ALL" in capabilities.get("drop", []),
        "capabilities.add must be empty": not set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
        "hostPort must not be set": not any(port.get("hostPort") for port in container.get("ports", [])),
        "probes and hooks must name no host": not any(
            handler.get(action, {}).get("host")
            for handler in _handlers(container)
            for action in ("httpGet", "tcpSocket")
        ),
    }
    yield from (rule for rule, holds in kept.items() if not holds)
    yield from _shared(context)


def _handlers(container: dict[str, Any]) -> list[dict[str, Any]]:
    probes = [container.get(name, {}) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    lifecycle = container.get("lifecycle", {})
    return [*probes, lifecycle.get("postStart", {}), lifecycle.get("preStop", {})]
