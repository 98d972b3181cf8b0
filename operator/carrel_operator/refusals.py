"""What the API server says when it refuses a pod or a claim, in words that say what to do instead. Pure.

Its texts are no interface, but the only place where the numbers are. What is not recognised is passed on as it is.
Sources: quota admission (k8s.io/apiserver/pkg/admission/plugin/resourcequota), LimitRanger, Priority and RuntimeClass
(k8s.io/kubernetes/plugin/pkg/admission); texts of a real server are in tests/unit/carrel_operator/data/refusals.json.
"""

from __future__ import annotations

import re
from typing import Final

from carrel_api.quantities import any_quantity
from carrel_operator.observed import Said

QUOTA: Final = "QuotaExceeded"
LIMIT_RANGE: Final = "LimitRangeExceeded"

_EXCEEDED: Final = re.compile(
    r"exceeded quota: (?P<quota>[^,\s]+), requested: (?P<requested>\S+), used: (?P<used>\S+), limited: (?P<limited>\S+)"
)
_UNSAID: Final = re.compile(r"failed quota: (?P<quota>[^:\s]+): must specify (?P<resources>.+)")
_BOUND: Final = re.compile(
    r"(?P<bound>maximum|minimum) (?P<resource>\S+) usage per (?P<of>\S+) is (?P<is>[^\s,.]+(?:\.\d+\w*)?), "
    r"but (?P<what>limit|request) is (?P<was>[^\s,\]]+)"
)
_RATIO: Final = re.compile(
    r"(?P<resource>\S+) max limit to request ratio per (?P<of>\S+) is (?P<is>[^\s,]+), "
    r"but provided ratio is (?P<was>\d+(?:\.\d*[1-9])?)"
)
_RUNTIME_CLASS: Final = re.compile(r'RuntimeClass "(?P<name>[^"]+)" not found')
_PRIORITY_CLASS: Final = re.compile(r"no PriorityClass with name (?P<name>\S+) was found")


def explain(message: str) -> Said:
    """Return the reason and the message of `Ready` for a request that the API server refused with this message."""
    return _quota(message) or _limit_range(message) or _class(message) or Said("PodRefused", message)


def _quota(message: str) -> Said | None:
    if found := _EXCEEDED.search(message):
        requested, used, limited = (_amounts(found[part]) for part in ("requested", "used", "limited"))
        lacking = ", ".join(
            f"{resource}: {used.get(resource, '?')} of {limited.get(resource, '?')} used, {wanted} needed"
            for resource, wanted in requested.items()
        )
        less = any(_above(wanted, limited.get(resource, "")) for resource, wanted in requested.items())
        help_ = "ask for less" if less else "end or suspend other sessions, ask for less"
        return Said(
            QUOTA,
            f"the namespace's ResourceQuota {found['quota']} must have room, and has not ({lacking}); "
            f"{help_}, or have the quota raised",
        )
    if found := _UNSAID.search(message):
        return Said(
            QUOTA,
            f"the namespace's ResourceQuota {found['quota']} must count nothing that kernel pods do not say, and it "
            f"counts {found['resources']}; have it changed, or have a LimitRange set a default",
        )
    return Said(QUOTA, message) if "exceeded quota" in message else None


def _limit_range(message: str) -> Said | None:
    said = [
        f"{found['resource']} {found['what']} of a {found['of']} must be at "
        f"{'most' if found['bound'] == 'maximum' else 'least'} {found['is']}, not {found['was']}"
        for found in _BOUND.finditer(message)
    ]
    said += [
        f"{found['resource']} limit of a {found['of']} must be at most {found['is']} times its request, "
        f"not {found['was']} times"
        for found in _RATIO.finditer(message)
    ]
    if not said:
        return None
    return Said(
        LIMIT_RANGE,
        f"a LimitRange of the namespace refuses the session: {'; '.join(said)}. Ask for other resources, or have the "
        "LimitRange changed; kernel pods request a tenth of their limits of CPU and node storage, and all of memory",
    )


def _class(message: str) -> Said | None:
    for pattern, reason, kind, field in (
        (_RUNTIME_CLASS, "RuntimeClassNotFound", "RuntimeClass", "runtimeClassName"),
        (_PRIORITY_CLASS, "PriorityClassNotFound", "PriorityClass", "priorityClassName"),
    ):
        if found := pattern.search(message):
            return Said(
                reason,
                f"the class's {field} must be an existing {kind}, and there is no {found['name']!r}; "
                "ask for another class, or have this one corrected",
            )
    return None


def _amounts(text: str) -> dict[str, str]:
    """Return the quantities of `limits.memory=1Gi,count/pods=1`, by resource."""
    return {name: amount for name, _, amount in (part.partition("=") for part in text.split(","))}


def _above(wanted: str, limit: str) -> bool:
    try:
        return any_quantity(wanted) > any_quantity(limit)
    except ValueError:
        return False
