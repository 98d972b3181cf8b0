"""Checks of the cluster, where kernels are pods: rights, enforcement of policies, and the limit of processes.

The gateway's own account sees no nodes. Whoever runs this with an administrator's KUBECONFIG learns more.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from carrel_gateway.doctor.findings import Missing, Unknown
from carrel_gateway.errors import CarrelError, ExecutorFailed
from carrel_gateway.settings import Settings

if TYPE_CHECKING:
    from carrel_gateway.executors.cluster import Cluster

_RIGHTS: Final = (
    *(("carrel.dev", "agentsessions", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
    ("", "pods", "get"),
)
"""What the chart's Role gives to the gateway."""
_LOOK: Final = "kubectl get --raw /api/v1/nodes/NODE/proxy/configz, as an administrator, says podPidsLimit"


async def open_cluster(settings: Settings) -> Cluster:
    """Return the connection to the cluster."""
    from carrel_gateway.executors.cluster import Cluster  # noqa: PLC0415  an extra of the package

    try:
        return await Cluster.open(settings.session_namespace)
    except CarrelError as error:
        raise Missing(error.message, "set KUBECONFIG to a file that kubectl can use") from error


async def rights(cluster: Cluster) -> str:
    """Return that the account may do all that the executor does."""
    try:
        lacking = [
            f"{verb} {resource}"
            for group, resource, verb in _RIGHTS
            if not await cluster.may(verb, resource, group=group)
        ]
        if not lacking:
            await cluster.count()
    except CarrelError as error:
        raise Missing(
            error.message, "check that the cluster is there (kubectl cluster-info) and that the chart is installed"
        ) from error
    if lacking:
        raise Missing(
            f"in namespace {cluster.namespace} the account may not: {', '.join(lacking)}",
            "give it the Role that the chart makes (helm upgrade --install carrel charts/carrel …)",
        )
    return f"all in namespace {cluster.namespace}"


async def isolation(cluster: Cluster) -> str:
    """Return what the operator has seen of the enforcement of network policies."""
    seen: dict[str, str] = {}
    try:
        async with aclosing(cluster.list_sessions()) as sessions:
            async for session in sessions:
                for condition in session.get("status", {}).get("conditions", []):
                    if condition["type"] == "Isolated":
                        seen.setdefault(condition["status"], f"{condition['reason']}: {condition.get('message', '')}")
    except CarrelError as error:
        raise Unknown(error.message, "see above") from error
    if "False" in seen:
        raise Missing(
            f"network policies are not enforced ({seen['False']})",
            "install a network plug-in that enforces NetworkPolicy; docs/reference/operator.md, Isolation",
        )
    if "True" not in seen:
        raise Unknown("no session has been looked at", "start one, and ask again")
    return "network policies are enforced, as the operator saw"


async def processes(cluster: Cluster) -> str:
    """Return the limit of processes in a pod, which every node has."""
    try:
        limits = await cluster.pid_limits()
    except ExecutorFailed as error:
        raise Unknown("the account may not look at nodes", _LOOK) from error
    if not limits:
        raise Unknown("no node could be asked", _LOOK)
    without = [name for name, limit in limits.items() if limit <= 0]
    if without:
        raise Missing(
            f"no podPidsLimit on {', '.join(sorted(without))}: one pod can take all processes of its node",
            "set podPidsLimit: 512 in the kubelet's configuration of each node, and restart it",
        )
    return f"podPidsLimit {min(limits.values())} or more on all nodes"
