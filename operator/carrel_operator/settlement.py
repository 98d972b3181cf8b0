"""What a session gets: its spec settled against its class, or the reason why it gets nothing. Pure.

The schema checked each object by itself; here the two meet. Environment names are checked once more, because a
cluster's stored schema may be older than this code.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from carrel_api.common import Egress
from carrel_api.environment import refused_name
from carrel_api.quantities import millicpus, number_of_bytes
from carrel_api.session import AgentSessionSpec
from carrel_api.session_class import Dataset, SessionClass, SessionClassSpec
from carrel_api.session_pool import SessionPoolSpec
from carrel_operator.builders.network_policy import Network, within


@dataclass(frozen=True)
class Refusal:
    """Why a session gets no pod, for its condition `Ready`."""

    reason: str
    message: str


@dataclass(frozen=True)
class Settlement:
    """What a session's pod is made from; quantities as Kubernetes writes them."""

    class_name: str
    allowed: SessionClassSpec
    image: str
    """Reference to pull."""
    cpu: str
    memory: str
    ephemeral_storage: str
    gpu: int
    workspace_size: str
    datasets: tuple[Dataset, ...]


def settle(spec: AgentSessionSpec, session_class: SessionClass, closed: Sequence[Network] = ()) -> Settlement | Refusal:
    """Return what a session gets under the class, or the first reason why it gets nothing."""
    allowed = session_class.spec
    image = _image(spec, allowed)
    if image is None:
        known = ", ".join(image.name for image in allowed.images)
        return Refusal("ImageNotInClass", f"image must be one of the class's images ({known}), not {spec.image!r}")
    asked, default = spec.resources, allowed.default_resources
    settled = Settlement(
        class_name=session_class.metadata.name,
        allowed=allowed,
        image=image,
        cpu=asked.cpu or default.cpu,
        memory=asked.memory or default.memory,
        ephemeral_storage=asked.ephemeral_storage or default.ephemeral_storage,
        gpu=default.gpu if asked.gpu is None else asked.gpu,
        workspace_size=spec.workspace.size or allowed.workspace.default_size,
        datasets=tuple(dataset for dataset in allowed.datasets if dataset.name in spec.datasets),
    )
    return (
        _resources_refusal(settled)
        or _workspace_refusal(spec, settled)
        or _datasets_refusal(spec, settled)
        or _environment_refusal(spec)
        or egress_refusal(spec, allowed, closed)
        or settled
    )


def settle_pool(spec: SessionPoolSpec, session_class: SessionClass) -> Settlement | Refusal:
    """Return what the pods of a pool get: what a session gets that asks for the same, and for nothing of its own."""
    return settle(AgentSessionSpec(image=spec.image, resources=spec.resources), session_class)


def egress_refusal(spec: AgentSessionSpec, allowed: SessionClassSpec, closed: Sequence[Network] = ()) -> Refusal | None:
    """Return why the class does not let the session reach what it names; none where it does.

    What lies in a closed range must be named by the class as such: a wider range of the class does not open it.
    """
    for entry in spec.network.egress:
        ceilings = _ceilings(allowed.egress, entry.cidr, closed)
        for port in entry.ports:
            if not any(_covers(ceiling, entry.cidr, port) for ceiling in ceilings):
                return Refusal(
                    "EgressAboveClass",
                    f"network.egress must be within what the class allows, and {entry.cidr} port {port} is not; "
                    "leave it out, or have the class widened",
                )
    return None


def _image(spec: AgentSessionSpec, allowed: SessionClassSpec) -> str | None:
    if not spec.image:
        return allowed.images[0].reference
    return next((image.reference for image in allowed.images if image.name == spec.image), None)


def _resources_refusal(settled: Settlement) -> Refusal | None:
    most = settled.allowed.maximum_resources
    checks: list[tuple[str, str, str, Callable[[str], int]]] = [
        ("cpu", settled.cpu, most.cpu, millicpus),
        ("memory", settled.memory, most.memory, number_of_bytes),
        ("ephemeralStorage", settled.ephemeral_storage, most.ephemeral_storage, number_of_bytes),
        ("gpu", str(settled.gpu), str(most.gpu), int),
    ]
    for name, wanted, limit, amount in checks:
        if amount(wanted) > amount(limit):
            return Refusal(
                "ResourcesAboveClass",
                f"resources.{name} must be at most {limit} in class {settled.class_name}, not {wanted}",
            )
    return None


def _workspace_refusal(spec: AgentSessionSpec, settled: Settlement) -> Refusal | None:
    limits = settled.allowed.workspace
    size = number_of_bytes(settled.workspace_size)
    if spec.workspace.type == "Persistent" and not limits.allow_persistent:
        return Refusal("ResourcesAboveClass", f"workspace.type must be Ephemeral in class {settled.class_name}")
    if size > number_of_bytes(limits.maximum_size):
        return Refusal(
            "ResourcesAboveClass",
            f"workspace.size must be at most {limits.maximum_size} in class {settled.class_name}, "
            f"not {settled.workspace_size}",
        )
    if spec.workspace.type == "Ephemeral" and size > number_of_bytes(settled.ephemeral_storage):
        return Refusal(
            "ResourcesAboveClass",
            f"workspace.size must be at most resources.ephemeralStorage ({settled.ephemeral_storage}) "
            f"when the workspace is ephemeral, not {settled.workspace_size}",
        )
    return None


def _datasets_refusal(spec: AgentSessionSpec, settled: Settlement) -> Refusal | None:
    unknown = set(spec.datasets) - {dataset.name for dataset in settled.datasets}
    if not unknown:
        return None
    known = ", ".join(dataset.name for dataset in settled.allowed.datasets) or "none"
    return Refusal("DatasetNotInClass", f"datasets must be of the class's ({known}), not {', '.join(sorted(unknown))}")


def _environment_refusal(spec: AgentSessionSpec) -> Refusal | None:
    refused = [variable.name for variable in spec.env if refused_name(variable.name)]
    if not refused:
        return None
    return Refusal("EnvironmentRefused", f"env must not set {', '.join(refused)}; choose other names")


def _ceilings(allowed: Sequence[Egress], cidr: str, closed: Sequence[Network]) -> Sequence[Egress]:
    if not _inside(cidr, closed):
        return allowed
    return [ceiling for ceiling in allowed if _inside(ceiling.cidr, closed)]


def _inside(cidr: str, closed: Sequence[Network]) -> bool:
    network = ipaddress.ip_network(cidr, strict=False)
    return any(within(network, other) for other in closed)


def _covers(ceiling: Egress, cidr: str, port: int) -> bool:
    wide, narrow = (ipaddress.ip_network(text, strict=False) for text in (ceiling.cidr, cidr))
    return (
        port in ceiling.ports
        and wide.version == narrow.version
        and wide.prefixlen <= narrow.prefixlen
        and wide.overlaps(narrow)
    )
