"""What was seen of a kernel pod's isolation, and what follows from it for the condition `Isolated`. Pure.

A policy that the API server stores is no policy that a network enforces, and nothing in the API says which. So the
operator looks (`sighting`), and believes only what it saw. Three connections are tried in one look:

* operator → kernel port, which policies open: it must connect, or the look says nothing. It shows that the pod is there
  and listens, that packets go both ways between the two, and that the closed port listens too (the kernel host opens
  that one first and closes it last);
* operator → closed port, which no policy opens: nothing may be heard;
* pod → operator's own port, which the operator's own policy opens and the pod's does not: nothing may be heard.

**Only silence is believed.** Where no policy is enforced, a port that nobody listens on is refused, and an address that
nobody has is unreachable: both look just as they would under a network plug-in that rejects instead of dropping. What
cannot be told from an open network is not taken for a closed one. Plug-ins that answer (kube-router; Cilium with
`policy-deny-response`) are hence not recognised, which `Isolated` says with what to do about it.

A foreign NetworkPolicy that selects the pod comes first: policies add up, so whatever it opens is open, though this
look may have tried other ways. Policies of other kinds (AdminNetworkPolicy, a plug-in's own) are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from carrel_api.names import SESSION_KIND, SESSION_LABEL
from carrel_operator.builders.identity import egress_policy_of, hash_of
from carrel_operator.builders.network_policy import DENY_POLICY, INGRESS_POLICY
from carrel_operator.sight import Sight
from carrel_operator.status import ISOLATED, Statement, Truth
from carrel_wire.host import ReachOutcome

Document: TypeAlias = Mapping[str, Any]

NAMED: Final = 5
"""Foreign policies that a message names; the others are counted."""
_HEARD: Final[Mapping[ReachOutcome, str]] = {
    "connected": "it was opened",
    "refused": "it was refused",
    "timeout": "nothing was heard",
    "unreachable": "somebody answered that there is no way",
}


def isolated(sight: Sight | None, *, foreign: Sequence[str] = (), asked_before: bool = False) -> Statement:
    """Return the condition `Isolated` of a session.

    Parameters
    ----------
    sight
        The latest look at the pod that the session has now; none: there was none yet.
    foreign
        Names of foreign policies that select the pod, from `foreign_policies`.
    asked_before
        Whether an earlier look at this very pod saw it fail to reach the operator: a bound host is not asked again,
        so a later look repeats the other two connections alone.
    """
    if foreign:
        return _said("False", "ForeignPolicy", _foreign_message(foreign))
    if sight is None:
        return _said("Unknown", "NotSeen", "it has not been tried yet whether the cluster enforces network policies")
    return _opened(sight) or _operator_heard(sight) or _pod_heard(sight, asked_before=asked_before)


def _opened(sight: Sight) -> Statement | None:
    """Return that something got through which must not; none where nothing did."""
    if sight.closed_port == "connected":
        return _said("False", "NotEnforced", _open("the operator reached a port of the pod that no policy opens"))
    if sight.from_pod == "connected":
        return _said("False", "NotEnforced", _open("the pod reached the operator, which no policy opens to it"))
    return None


def _operator_heard(sight: Sight) -> Statement | None:
    """Return why the operator's own connections prove nothing; none where they do."""
    if sight.kernel_port != "connected":
        heard = _HEARD[sight.kernel_port]
        message = f"the operator does not reach the kernel port either ({heard}), so nothing is proven; it looks again"
        return _said("Unknown", "NotSeen", message)
    if sight.closed_port != "timeout":
        message = _answered("the operator's connection to the closed port", sight.closed_port)
        return _said("False", "ClosedPortRefused", message)
    return None


def _pod_heard(sight: Sight, *, asked_before: bool) -> Statement:
    if sight.from_pod is None and not asked_before:
        return _said("Unknown", "NotSeen", sight.not_asked)
    if sight.from_pod not in (None, "timeout"):
        message = _answered("the pod's connection to the operator", sight.from_pod)
        return _said("False", "OperatorRefused", message)
    message = "the operator was seen to reach the kernel port alone, and the pod not to reach the operator"
    return _said("True", "Enforced", message)


def is_foreign(policy: Document) -> bool:
    """Return whether a NetworkPolicy is not the operator's to put right: neither a namespace's nor a session's own.

    The name is enough for the first, and for the egress policy of a session its owner and its selector too: such a
    policy reaches that session's pod alone, and what is in it is the operator's to say, whoever made it.
    """
    metadata = policy["metadata"]
    if metadata["name"] in {DENY_POLICY, INGRESS_POLICY}:
        return False
    owners: Sequence[Document] = metadata.get("ownerReferences") or ()
    owner = next((one for one in owners if one.get("controller") and one.get("kind") == SESSION_KIND), None)
    if owner is None or metadata["name"] != egress_policy_of(owner["name"], owner["uid"]):
        return True
    return policy.get("spec", {}).get("podSelector") != {"matchLabels": {SESSION_LABEL: hash_of(owner["uid"])}}


def foreign_policies(policies: Iterable[Document], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names, in order, of a namespace's policies that select a pod with these labels and are foreign.

    Also those that open nothing: what they will open tomorrow is nobody's promise.

    Parameters
    ----------
    policies
        NetworkPolicies of the pod's namespace, as documents.
    labels
        Labels of the pod as they are stored.
    """
    found = (policy for policy in policies if selects(policy.get("spec", {}).get("podSelector"), labels))
    return tuple(sorted(policy["metadata"]["name"] for policy in found if is_foreign(policy)))


def selects(selector: Document | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector fits: all its parts must, and one without parts fits everything.

    Source: Kubernetes' LabelSelector. An operator that is not known here counts as fitting, which is the careful side.
    """
    if not selector:
        return True
    equal: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Sequence[Document] = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in equal.items()) and all(
        _fits(expression, labels) for expression in expressions
    )


def _fits(expression: Document, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    values: Sequence[str] = expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return True


def _open(what: str) -> str:
    return (
        f"{what}: install a network plug-in that enforces NetworkPolicy, or wait until it has put new ones into force"
    )


def _answered(which: str, outcome: ReachOutcome) -> str:
    return (
        f"{which} was answered ({_HEARD[outcome]}), which cannot be told from an open network; have the network "
        "plug-in drop what policies deny instead of rejecting it, and use the operator's version of the kernel image"
    )


def _foreign_message(foreign: Sequence[str]) -> str:
    named = ", ".join(foreign[:NAMED])
    more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
    return f"network policies add up, and {named}{more} selects kernel pods; delete it, or have it select other pods"


def _said(status: Truth, reason: str, message: str) -> Statement:
    return Statement(ISOLATED, status, reason, message)
