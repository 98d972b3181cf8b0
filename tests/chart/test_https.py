"""HTTPS by the gateway itself.

Plan: with a Secret named, the gateway gets both files of it and nothing else of it, and all that calls the gateway, its
probes, its Service, the Ingress, the policy and the test, does so by the port that speaks HTTPS; without one nothing of
this is there. That the test's own program works over TLS is in `tests/integration/http/test_tls.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.rendering import MINIMAL, merged, one, render

TLS = {"secretName": "carrel-tls"}
SECRET = "carrel-tls"
MOUNT = {"name": "tls", "mountPath": "/etc/carrel/tls", "readOnly": True}


@pytest.fixture(scope="module", params=["https", "http"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def objects(scheme: str) -> list[dict[str, Any]]:
    values = {"ingress": {"enabled": True, "host": "carrel.test"}, **({"tls": TLS} if scheme == "https" else {})}
    return render(merged(MINIMAL, {"gateway": values}))


def test_the_gateway_has_the_files_and_its_probes_speak_it(objects: list[dict[str, Any]], scheme: str) -> None:
    spec = one(objects, "Deployment", "-gateway")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    given = {entry["name"]: entry["value"] for entry in container["env"] if "TLS" in entry["name"]}
    volumes = [volume for volume in spec["volumes"] if volume["name"] == "tls"]
    if scheme == "https":
        assert given == {
            "CARREL_TLS_CERT_FILE": "/etc/carrel/tls/tls.crt",
            "CARREL_TLS_KEY_FILE": "/etc/carrel/tls/tls.key",
        }
        [volume] = volumes
        assert volume["secret"]["secretName"] == SECRET
        assert {item["path"] for item in volume["secret"]["items"]} == {"tls.crt", "tls.key"}
    else:
        assert (given, volumes) == ({}, [])
    assert (MOUNT in container["volumeMounts"]) == (scheme == "https")
    assert MOUNT not in spec["initContainers"][0]["volumeMounts"]
    assert {"name": scheme, "containerPort": 8000} in container["ports"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["port"], asked["scheme"]) == (scheme, scheme.upper())


def test_whoever_calls_it_does_so_by_that_port(objects: list[dict[str, Any]], scheme: str) -> None:
    [port] = one(objects, "Service", "-gateway")["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == (scheme, scheme)
    assert port.get("appProtocol") == ("https" if scheme == "https" else None)
    [rule] = one(objects, "Ingress", "-gateway")["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"]["port"] == {"name": scheme}
    assert one(objects, "NetworkPolicy", "-gateway")["spec"]["ingress"] == [{"ports": [{"port": scheme}]}]


def test_the_test_wants_that_certificate_and_never_sees_its_key(objects: list[dict[str, Any]], scheme: str) -> None:
    spec = one(objects, "Pod", "-test")["spec"]
    [container] = spec["containers"]
    given = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert given["GATEWAY"] == f"{scheme}://release-name-carrel-gateway.carrel.svc:80"
    if scheme == "https":
        assert given["CERTIFICATE"] == "/etc/carrel/tls/tls.crt"
        assert container["volumeMounts"] == [MOUNT]
        [volume] = spec["volumes"]
        assert volume["secret"]["secretName"] == SECRET
        assert volume["secret"]["items"] == [{"key": "tls.crt", "path": "tls.crt"}]
    else:
        assert "CERTIFICATE" not in given
        assert "volumes" not in spec
