"""Builders by whole manifests: each is compared with a file in data/, so that a change of any field is seen in review.

`python -m tests.unit.carrel_operator.test_builders` writes the files anew; read the difference before it is committed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.pod_security import violations
from tests.unit.carrel_operator.factories import SESSION_UID, session, session_class

from carrel_api.session import AgentSession
from carrel_operator.builders.identity import claim_name, hash_of, pod_name
from carrel_operator.builders.keys import keys_config_map
from carrel_operator.builders.network_policy import Peer, egress_policy, namespace_policies
from carrel_operator.builders.pod import kernel_pod
from carrel_operator.builders.volume import workspace_claim
from carrel_operator.settlement import Settlement, settle
from carrel_wire.tokens import KeySet, PublicKey

DATA = Path(__file__).parent / "data"

FULL_SESSION = session(
    {
        "image": "gpu",
        "resources": {"cpu": "1500m", "memory": "3Gi", "ephemeralStorage": "6Gi", "gpu": 1},
        "env": [{"name": "MODE", "value": "fast"}],
        "datasets": ["weather"],
        "workspace": {"type": "Persistent", "size": "5Gi"},
        "network": {
            "egress": [
                {"cidr": "203.0.113.77/24", "ports": [443, 80, 443]},
                {"cidr": "2001:db8::/32", "ports": [443]},
            ]
        },
        "owner": "person@example.org",
        "tenant": "research",
    }
)
FULL_CLASS = session_class(
    {
        "maximumResources": {"cpu": "4", "memory": "8Gi", "ephemeralStorage": "8Gi", "gpu": 2},
        "gpuResourceName": "example.org/gpu",
        "pullSecrets": ["registry"],
        "runtimeClassName": "gvisor",
        "userNamespace": "Required",
        "runAsUser": 65532,
        "kernels": {
            "preload": ["polars", "xgboost.sklearn"],
            "spare": 3,
            "allowedImports": ["standard", "scipy.stats"],
        },
        "nodeSelector": {"example.org/pool": "kernels"},
        "tolerations": [
            {"key": "example.org/kernels", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 30},
        ],
        "priorityClassName": "kernels",
        "egress": [{"cidr": "0.0.0.0/0", "ports": [80, 443]}, {"cidr": "::/0", "ports": [443]}],
        "proxy": {
            "http": "http://proxy.example.org:3128",
            "https": "http://proxy.example.org:3128",
            "noProxy": ".example.org",
        },
        "caBundle": "corporate-ca",
        "datasets": [{"name": "weather", "claimName": "weather-2026"}, {"name": "other", "claimName": "other"}],
        "workspace": {"storageClassName": "fast"},
    }
)


def settled(wanted: AgentSession, allowed: Any) -> Settlement:
    found = settle(wanted.spec, allowed)
    assert isinstance(found, Settlement), found
    return found


MANIFESTS: dict[str, Callable[[], Any]] = {
    "pod-plain": lambda: kernel_pod(session(), settled(session(), session_class())),
    "pod-full": lambda: kernel_pod(FULL_SESSION, settled(FULL_SESSION, FULL_CLASS)),
    "claim-plain": lambda: workspace_claim(session(), settled(session(), session_class())),
    "claim-full": lambda: workspace_claim(FULL_SESSION, settled(FULL_SESSION, FULL_CLASS)),
    "egress": lambda: egress_policy(FULL_SESSION, FULL_SESSION.spec.network.egress),
    "namespace-policies": lambda: namespace_policies(
        "carrel-sessions",
        [
            Peer("carrel", {"app.kubernetes.io/component": "gateway"}),
            Peer("carrel", {"app.kubernetes.io/component": "operator"}),
        ],
    ),
    "keys": lambda: keys_config_map("carrel-sessions", KeySet([PublicKey("gateway-1", "PEM", ["bind", "execute"])])),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_whole_manifest_is_as_reviewed(name: str):
    assert MANIFESTS[name]() == yaml.safe_load((DATA / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", ["pod-plain", "pod-full"])
def test_pods_are_restricted(name: str):
    assert violations(MANIFESTS[name]()) == []


@pytest.mark.parametrize(
    ("cidr", "block"),
    [
        ("0.0.0.0/0", ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"]),
        ("169.0.0.0/8", ["169.254.0.0/16"]),
        ("203.0.113.0/24", None),
        ("::/0", ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "64:ff9b::a9fe:a9fe/128"]),
    ],
)
def test_metadata_addresses_stay_closed_inside_a_range(cidr: str, block: list[str] | None):
    policy = egress_policy(
        session(), session({"network": {"egress": [{"cidr": cidr, "ports": [1]}]}}).spec.network.egress
    )
    assert policy is not None
    assert policy["spec"]["egress"][0]["to"][0]["ipBlock"].get("except") == block


@pytest.mark.parametrize(
    ("cidr", "block"),
    [
        ("8.0.0.0/6", ["10.0.0.0/8"]),
        ("10.0.0.0/8", None),  # the class named it: settlement saw to that
        ("10.1.0.0/16", None),
        ("fc00::/6", ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "fc00::/7"]),
    ],
)
def test_closed_ranges_stay_closed_inside_wider_ones(cidr: str, block: list[str] | None):
    wanted = session({"network": {"egress": [{"cidr": cidr, "ports": [1]}]}})
    closed = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fc00::/7")]
    policy = egress_policy(wanted, wanted.spec.network.egress, closed)
    assert policy is not None
    assert policy["spec"]["egress"][0]["to"][0]["ipBlock"] == {"cidr": cidr, **({"except": block} if block else {})}


@pytest.mark.parametrize("cidr", ["169.254.169.254/32", "169.254.0.0/16", "fd00:ec2::254/128", "fe80::/64"])
def test_a_range_of_metadata_addresses_alone_opens_nothing(cidr: str):
    wanted = session({"network": {"egress": [{"cidr": cidr, "ports": [80]}]}})
    assert egress_policy(wanted, wanted.spec.network.egress) is None


def test_names_are_those_of_one_uid_and_fit_a_label():
    long = session(name="a" * 63)
    other = session(uid="another")
    assert len(pod_name(long)) == 63
    assert pod_name(session()) != pod_name(other)
    assert claim_name(session()) == f"{pod_name(session())}-workspace"
    assert "--" not in pod_name(session(name="a" * 51 + "-b"))
    assert hash_of(SESSION_UID) == hash_of(SESSION_UID)
    assert len(hash_of("")) == 32


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for file, make in MANIFESTS.items():
        (DATA / f"{file}.yaml").write_text(yaml.safe_dump(make(), sort_keys=False, width=120))
