"""The pods of the chart itself.

Plan: every container passes the restricted Pod Security Standard, also with a read-only root and without default
rights; gateway and operator have all probes, requests and limits; secrets reach a container one by one, and the
operator never sees the gateway's private key nor the gateway's containers the role that changes the schema.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.chart.rendering import MINIMAL, NAMESPACE, merged, of_kind, one, pod_specs, render

from carrel_gateway.identity.secrets import load_master_keys
from carrel_gateway.settings import Settings


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return render()


def test_all_pods_pass_the_restricted_standard(objects: list[dict[str, Any]]) -> None:
    """Source: Kubernetes documentation, Pod Security Standards, Restricted."""
    specs = pod_specs(objects)
    assert len(specs) == 3
    for name, spec in specs.items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            assert field not in spec, name
        allowed = {"emptyDir", "secret", "configMap", "projected", "downwardAPI", "persistentVolumeClaim"}
        for volume in spec.get("volumes", []):
            assert len(set(volume) & allowed) == 1, (name, volume)
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
            assert all("hostPort" not in port for port in container.get("ports", [])), name


@pytest.mark.parametrize("component", ["gateway", "operator"])
def test_servers_have_probes_and_are_kept_available(objects: list[dict[str, Any]], component: str) -> None:
    deployment = one(objects, "Deployment", f"-{component}")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        names = {port["name"] for port in container["ports"]}
        assert container[probe]["httpGet"]["port"] in names
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = one(objects, "PodDisruptionBudget", f"-{component}")
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels


def test_one_replica_has_no_disruption_budget() -> None:
    """It would keep a node from ever being drained."""
    values = merged(MINIMAL, {"gateway": {"replicas": 1}, "operator": {"replicas": 1}})
    assert of_kind(render(values), "PodDisruptionBudget") == []


def test_generated_signing_keys_are_pairs_and_of_the_right_kind(objects: list[dict[str, Any]]) -> None:
    for component in ("gateway", "operator"):
        data = one(objects, "Secret", f"-{component}-signing")["data"]
        private = load_pem_private_key(base64.b64decode(data["tls.key"]), None)
        certificate = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
        assert certificate.public_key() == private.public_key()
        assert type(private).__name__ == "Ed25519PrivateKey"


def test_the_operator_sees_only_the_public_half_of_the_gateways_key(objects: list[dict[str, Any]]) -> None:
    spec = one(objects, "Deployment", "-operator")["spec"]["template"]["spec"]
    secrets = {volume["secret"]["secretName"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    assert secrets["release-name-carrel-gateway-signing"]["items"] == [{"key": "tls.crt", "path": "tls.crt"}]
    assert secrets["release-name-carrel-operator-signing"]["items"] == [{"key": "tls.key", "path": "tls.key"}]
    assert "secretKeyRef" not in str(spec)
    assert "envFrom" not in str(spec)


def test_only_the_migration_sees_the_role_that_changes_the_schema(objects: list[dict[str, Any]]) -> None:
    spec = one(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    assert "CARREL_MIGRATION_DATABASE_URL" in str(spec["initContainers"])
    assert "CARREL_MIGRATION_DATABASE_URL" not in str(spec["containers"])
    assert "envFrom" not in str(spec)


def test_given_secrets_are_used_and_none_is_made() -> None:
    given = {"existingSecret": "mine", "signing": {"existingSecret": "gateway-key"}}
    objects = render({"gateway": given, "operator": {"signing": {"existingSecret": "operator-key"}}})
    assert of_kind(objects, "Secret") == []
    gateway = str(one(objects, "Deployment", "-gateway"))
    assert "'name': 'mine'" in gateway
    assert "'secretName': 'gateway-key'" in gateway
    operator = str(one(objects, "Deployment", "-operator"))
    assert "'secretName': 'operator-key'" in operator
    assert "'secretName': 'gateway-key'" in operator


def test_settings_become_environment() -> None:
    values = merged(MINIMAL, {"gateway": {"settings": {"llm_model": "demo/analyst", "agent_max_steps": 7}}})
    container = one(render(values), "Deployment", "-gateway")["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["CARREL_LLM_MODEL"] == "demo/analyst"
    assert environment["CARREL_AGENT_MAX_STEPS"] == "7"


def test_the_chart_sets_only_settings_that_the_gateway_has(objects: list[dict[str, Any]]) -> None:
    container = one(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]["containers"][0]
    named = {entry["name"].removeprefix("CARREL_").lower() for entry in container["env"]}
    assert named <= set(Settings.model_fields)


def test_an_image_can_be_pinned_by_digest() -> None:
    digest = "sha256:" + "a" * 64
    values = merged(MINIMAL, {"images": {"operator": {"repository": "images.test/op", "digest": digest}}})
    container = one(render(values), "Deployment", "-operator")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"images.test/op@{digest}"


def test_keys_that_sign_are_made_once_and_kept(
    objects: list[dict[str, Any]], documents: dict[str, dict[str, Any]], upgrade: Callable[[dict[str, Any]], Any]
) -> None:
    """With others, an upgrade would end all logins and make what is encrypted unreadable."""
    made = one(objects, "Secret", "-gateway")["stringData"]["CARREL_SECRET_KEYS"]
    keys = load_master_keys(Settings(_env_file=None, secret_keys=made))
    assert keys.newest.kid == "k1"
    again = one(render(), "Secret", "-gateway")["stringData"]["CARREL_SECRET_KEYS"]
    assert again != made
    name = one(objects, "Secret", "-gateway")["metadata"]["name"]
    data = {"CARREL_SECRET_KEYS": base64.b64encode(made.encode()).decode()}
    documents[f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": data,
    }
    assert one(upgrade({}), "Secret", "-gateway")["stringData"]["CARREL_SECRET_KEYS"] == made
