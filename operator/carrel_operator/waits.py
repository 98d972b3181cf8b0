"""What a pod without a running container waits for: the cluster's words, and what to do where its class is why. Pure.

The kubelet tells some of it in events alone, which the operator does not read: of a volume that cannot be mounted and a
sandbox that cannot be made the pod's status shows only that it takes long. Then what the pod needs is named.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from carrel_operator.observed import PodView, Said

IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
PREPARED_WITHIN: Final = timedelta(seconds=60)
"""A node that takes longer to mount volumes and to make the sandbox is most often one that cannot."""


def pod_waits(pod: PodView, now: datetime) -> Said | None:
    """Return why the pod does not run yet; none where there is nothing to say but that it starts."""
    if pod.unscheduled is not None and not pod.scheduled:
        return _unscheduled(pod, pod.unscheduled)
    if _is_unprepared(pod) and preparing(pod, now) is None:
        return Said("PodNotPrepared", _unprepared(pod))
    if pod.waiting is None:
        return None
    if pod.waiting.reason in IMAGE_REASONS:
        said = f"{pod.waiting.reason}: {pod.waiting.message or 'the image cannot be pulled'}"
        return Said("ImagePullFailed", said + _pull_secrets(pod))
    if pod.waiting.reason == "CreateContainerConfigError" and "runAsNonRoot" in pod.waiting.message:
        return Said(
            "UserNotAssigned",
            "the class's runAsUser must be set, because this cluster assigns pods no user and the image's own is none "
            f"that is known not to be root ({pod.waiting.message})",
        )
    return Said("Starting", f"{pod.waiting.reason}: {pod.waiting.message}") if pod.waiting.message else None


def preparing(pod: PodView, now: datetime) -> float | None:
    """Return the seconds that a pod's node has left to prepare it; none where it is prepared, or ran out of time."""
    if not _is_unprepared(pod) or pod.scheduled_at is None:
        return None
    left = (pod.scheduled_at + PREPARED_WITHIN - now).total_seconds()
    return left if left > 0 else None


def _is_unprepared(pod: PodView) -> bool:
    return pod.scheduled_at is not None and pod.scheduled and not pod.prepared and not pod.running


def _unscheduled(pod: PodView, told: Said) -> Said:
    if told.reason != "Unschedulable":
        return Said("Starting", told.message)
    for dataset, claim in pod.needs.datasets:
        if f'persistentvolumeclaim "{claim}" not found' in told.message:
            return Said(
                "DatasetNotFound",
                f"the class's data set {dataset} must have the PersistentVolumeClaim {claim} in this namespace, and "
                "there is none; leave the data set out, or have the claim made",
            )
    for device, amount in pod.needs.devices:
        if f"Insufficient {device}" in told.message:
            return Said(
                "Unschedulable",
                f"no node has {amount} {device} free; wait, ask for fewer, or have such nodes added ({told.message})",
            )
    return Said("Unschedulable", told.message)


def _unprepared(pod: PodView) -> str:
    needs = pod.needs
    named = [f"the volume of the claim {claim} (data set {dataset})" for dataset, claim in needs.datasets]
    if needs.authorities:
        named.append(f"the ConfigMap {needs.authorities} with the key ca.crt (the class's caBundle)")
    if needs.runtime_class:
        named.append(f"the runtime of RuntimeClass {needs.runtime_class} on that node")
    if needs.user_namespace:
        named.append("user namespaces on that node (the class's userNamespace)")
    what = f"; the pod needs {', '.join(named)}" if named else ""
    return (
        f"its node {pod.node} did not prepare the pod within {PREPARED_WITHIN.total_seconds():.0f} s{what}. "
        f"The events of pod {pod.name} say what failed"
    )


def _pull_secrets(pod: PodView) -> str:
    names = ", ".join(pod.needs.pull_secrets)
    return (
        f"; the class's pull secrets ({names}) must be in this namespace and let the image be pulled" if names else ""
    )
