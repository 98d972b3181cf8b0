"""Network policies: kernel pods reach nothing and nothing reaches them, but the few exceptions named here.

The two policies of a namespace are there before its first pod. Policies add up, so an exception for one session is one
more policy, which selects by a label that is made from the session's UID.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from carrel_api import names
from carrel_api.common import Egress
from carrel_api.session import AgentSession
from carrel_operator.builders.identity import Manifest, egress_policy_name, hash_of, session_metadata

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

DENY_POLICY: Final = "carrel-kernel-deny-all"
INGRESS_POLICY: Final = "carrel-kernel-port"
NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"
"""Set by the API server on every namespace and not to be forged."""

CLOSED: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(cidr)
    for cidr in (
        "169.254.0.0/16",  # link-local: metadata of most clouds
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # Azure's platform address
        "192.0.0.192/32",  # metadata of Oracle Cloud
        "fe80::/10",  # link-local
        "fd00:ec2::254/128",  # metadata of AWS
        "fd20:ce::254/128",  # metadata of Google Cloud
        "64:ff9b::a9fe:a9fe/128",  # 169.254.169.254 through NAT64
    )
)
"""Stays closed whatever a class allows."""


@dataclass(frozen=True)
class Peer:
    """Pods that may call kernel hosts: both their namespace and their labels must fit."""

    namespace: str
    labels: Mapping[str, str]


def namespace_policies(namespace: str, peers: Sequence[Peer]) -> list[Manifest]:
    """Return the policies for all kernel pods of a session namespace: deny everything, open the kernel port."""
    kernels = {"matchLabels": {names.COMPONENT_LABEL: names.KERNEL_COMPONENT}}
    callers = [
        {
            "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: peer.namespace}},
            "podSelector": {"matchLabels": dict(peer.labels)},
        }
        for peer in peers
    ]
    return [
        _policy(namespace, DENY_POLICY, {"podSelector": kernels, "policyTypes": ["Ingress", "Egress"]}),
        _policy(
            namespace,
            INGRESS_POLICY,
            {
                "podSelector": kernels,
                "policyTypes": ["Ingress"],
                "ingress": [{"from": callers, "ports": [{"protocol": "TCP", "port": names.KERNEL_PORT}]}],
            },
        ),
    ]


def egress_policy(session: AgentSession, allowed: Sequence[Egress], closed: Sequence[Network] = ()) -> Manifest | None:
    """Return the policy that opens these ranges for the session's pod; none where nothing is open.

    Parameters
    ----------
    session
        Whose pod it is for.
    allowed
        What the class lets it reach.
    closed
        Ranges that stay closed inside wider ones.
    """
    rules = [rule for entry in allowed if (rule := _egress_rule(entry, closed)) is not None]
    if not rules:
        return None
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": session_metadata(session, egress_policy_name(session)),
        "spec": {
            "podSelector": {"matchLabels": {names.SESSION_LABEL: hash_of(session.metadata.uid)}},
            "policyTypes": ["Egress"],
            "egress": rules,
        },
    }


def _policy(namespace: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {names.MANAGED_BY_LABEL: names.MANAGER}},
        "spec": spec,
    }


def within(inner: Network, outer: Network) -> bool:
    """Return whether all of `inner` lies in `outer`."""
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)


def _egress_rule(entry: Egress, closed: Sequence[Network]) -> Manifest | None:
    network = ipaddress.ip_network(entry.cidr, strict=False)
    if any(within(network, other) for other in CLOSED):
        return None
    block: Manifest = {"cidr": str(network)}
    inside = [other for other in (*CLOSED, *closed) if other != network and within(other, network)]
    if inside:
        block["except"] = [str(other) for other in inside]
    return {
        "to": [{"ipBlock": block}],
        "ports": [{"protocol": "TCP", "port": port} for port in sorted(set(entry.ports))],
    }
