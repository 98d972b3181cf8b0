"""The other objects of the chart: the session namespace, custom resources, network policies, the ways in.

Plan: the namespace enforces the restricted standard and survives an uninstall; the definitions are those of `crds/`,
with a keep policy; the default class comes after them; policies close all ports that nobody was named for.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.chart.rendering import MINIMAL, ROOT, merged, of_kind, one, render

from carrel_api import names
from carrel_api.session_class import SessionClass

SESSIONS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "carrel-sessions"}}}
REACH = {"ports": [{"port": 8081}], "from": [SESSIONS]}
KEEP = {"helm.sh/resource-policy": "keep"}


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return render()


def test_the_session_namespace_enforces_the_restricted_standard_and_is_kept(objects: list[dict[str, Any]]) -> None:
    metadata = one(objects, "Namespace", "carrel-sessions")["metadata"]
    for mode in ("enforce", "audit", "warn"):
        assert metadata["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
    assert metadata["annotations"] == KEEP


def test_labels_of_the_namespace_cannot_weaken_it() -> None:
    labels = {"pod-security.kubernetes.io/enforce": "privileged", "team": "a"}
    metadata = one(
        render(merged(MINIMAL, {"sessions": {"namespace": {"labels": labels}}})), "Namespace", "carrel-sessions"
    )["metadata"]
    assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert metadata["labels"]["team"] == "a"


def test_definitions_are_those_of_the_repository_and_are_kept(objects: list[dict[str, Any]]) -> None:
    found = {crd["metadata"]["name"]: crd for crd in of_kind(objects, "CustomResourceDefinition")}
    wanted = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert sorted(found) == sorted(crd["metadata"]["name"] for crd in wanted) != []
    for crd in wanted:
        crd["metadata"]["annotations"] = KEEP
        assert found[crd["metadata"]["name"]] == crd


def test_definitions_can_be_left_to_somebody_else() -> None:
    assert of_kind(render(merged(MINIMAL, {"crds": {"install": False}})), "CustomResourceDefinition") == []


def test_the_default_class_is_one_that_the_operator_accepts(objects: list[dict[str, Any]]) -> None:
    document = one(objects, "SessionClass", "default")
    parsed = SessionClass.parse(document)
    assert parsed.is_default
    assert parsed.spec.images[0].reference == "carrel-kernel:0.1.0"
    assert parsed.spec.allow_tags


def test_the_default_class_comes_after_its_definition_and_stays(objects: list[dict[str, Any]]) -> None:
    noted = one(objects, "SessionClass", "default")["metadata"]["annotations"]
    assert noted["helm.sh/hook"] == "post-install,post-upgrade"
    assert noted["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert of_kind(render(merged(MINIMAL, {"sessions": {"defaultClass": {"create": False}}})), "SessionClass") == []


def test_the_default_class_can_be_changed_and_pinned() -> None:
    digest = "sha256:" + "b" * 64
    values = {
        "images": {"kernel": {"digest": digest}},
        "sessions": {"defaultClass": {"spec": {"maximumResources": {"cpu": "8"}, "runtimeClassName": "gvisor"}}},
    }
    spec = SessionClass.parse(one(render(merged(MINIMAL, values)), "SessionClass", "default")).spec
    assert spec.images[0].reference == f"carrel-kernel@{digest}"
    assert not spec.allow_tags
    assert spec.maximum_resources.cpu == "8"
    assert spec.runtime_class_name == "gvisor"


def test_policies_open_the_gateways_port_alone(objects: list[dict[str, Any]]) -> None:
    gateway = one(objects, "NetworkPolicy", "-gateway")["spec"]
    operator = one(objects, "NetworkPolicy", "-operator")["spec"]
    assert gateway["ingress"] == [{"ports": [{"port": "http"}]}]
    assert operator["ingress"] == [REACH]
    assert operator["policyTypes"] == ["Ingress", "Egress"]
    assert {} not in operator["egress"]
    for policy, component in ((gateway, "gateway"), (operator, "operator")):
        selected = policy["podSelector"]["matchLabels"].items()
        labels = one(objects, "Deployment", f"-{component}")["spec"]["template"]["metadata"]["labels"]
        assert selected <= labels.items()


def test_policies_can_be_narrowed() -> None:
    ingress = [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]
    monitoring = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    database = [{"ports": [{"port": 5432}], "to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}]}]
    narrowed = {"gatewayFrom": ingress, "metricsFrom": monitoring, "gatewayEgress": database}
    objects = render(merged(MINIMAL, {"networkPolicy": narrowed}))
    gateway = one(objects, "NetworkPolicy", "-gateway")["spec"]
    assert gateway["ingress"] == [
        {"ports": [{"port": "http"}], "from": ingress},
        {"ports": [{"port": "metrics"}], "from": monitoring},
    ]
    assert database[0] in gateway["egress"]
    assert {} not in gateway["egress"]
    operator = one(objects, "NetworkPolicy", "-operator")["spec"]
    assert operator["ingress"] == [REACH, {"ports": [{"port": "metrics"}], "from": monitoring}]


@pytest.mark.parametrize(
    ("values", "wanted"), [({}, [443, 6443, 8443, 16443]), ({"apiServerPorts": [7443]}, [7443])], ids=["usual", "given"]
)
def test_the_api_server_is_reached_at_its_ports_alone(values: dict[str, Any], wanted: list[int]) -> None:
    database = {"gatewayEgress": [{"ports": [{"port": 5432}]}]}
    objects = render(merged(MINIMAL, {"networkPolicy": {**database, **values}}))
    for component in ("gateway", "operator"):
        rules = one(objects, "NetworkPolicy", f"-{component}")["spec"]["egress"]
        assert {"ports": [{"port": port} for port in wanted]} in rules
        opened = {port["port"] for rule in rules for port in rule["ports"]}
        assert opened - {53, 8888, 8889, 5432} == set(wanted)


def test_the_operator_alone_may_try_the_closed_port_and_kernels_may_try_the_operators(
    objects: list[dict[str, Any]],
) -> None:
    policies = {name: one(objects, "NetworkPolicy", f"-{name}")["spec"] for name in ("gateway", "operator")}
    closed = {"ports": [{"port": names.CLOSED_PORT}], "to": [SESSIONS]}
    assert closed in policies["operator"]["egress"]
    assert closed not in policies["gateway"]["egress"]
    [container] = one(objects, "Deployment", "-operator")["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable for variable in container["env"]}
    assert given["CARREL_POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert int(given["CARREL_REACH_PORT"]["value"]) == REACH["ports"][0]["port"]
    assert REACH in policies["operator"]["ingress"]
    assert "kernel" not in str(policies["operator"]["ingress"])  # not the pods' labels: whoever is there may try


def test_without_policies_there_are_none() -> None:
    assert of_kind(render(merged(MINIMAL, {"networkPolicy": {"enabled": False}})), "NetworkPolicy") == []


def test_the_service_leads_to_the_gateways_port(objects: list[dict[str, Any]]) -> None:
    service = one(objects, "Service", "-gateway")["spec"]
    template = one(objects, "Deployment", "-gateway")["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    assert service["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    node_port = {"gateway": {"service": {"type": "NodePort", "nodePort": 30800}}}
    changed = one(render(merged(MINIMAL, node_port)), "Service", "-gateway")["spec"]
    assert (changed["type"], changed["ports"][0]["nodePort"]) == ("NodePort", 30800)


def test_an_ingress_is_made_when_asked_for(objects: list[dict[str, Any]]) -> None:
    assert of_kind(objects, "Ingress") == []
    wanted = {"enabled": True, "className": "nginx", "host": "carrel.test", "tlsSecret": "tls"}
    spec = one(render(merged(MINIMAL, {"gateway": {"ingress": wanted}})), "Ingress", "-gateway")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"hosts": ["carrel.test"], "secretName": "tls"}]
    assert spec["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] == "release-name-carrel-gateway"
