"""What a class gives to all programs in its pods: proxies and authorities.

Plan: variables in both spellings, the pod's own hosts never behind a proxy, authorities as a read-only file; a class
without either changes nothing; whatever a class names, the pod stays restricted and gets no secret.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.pod_security import violations
from tests.unit.carrel_operator.factories import session, session_class

from carrel_operator.builders.pod import kernel_pod
from carrel_operator.settlement import Settlement, settle

PROXY = "http://proxy.example.org:3128"


def pod(allowed: dict[str, Any]) -> dict[str, Any]:
    settled = settle(session().spec, session_class(allowed))
    assert isinstance(settled, Settlement), settled
    return kernel_pod(session(), settled)


def variables(of: dict[str, Any]) -> dict[str, str]:
    [container] = of["spec"]["containers"]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def added(allowed: dict[str, Any]) -> dict[str, str]:
    """Variables that a class adds."""
    return {name: value for name, value in variables(pod(allowed)).items() if name not in variables(pod({}))}


def test_proxies_are_told_in_both_spellings() -> None:
    assert added({"proxy": {"http": PROXY, "https": PROXY, "noProxy": ".example.org,203.0.113.0/24"}}) == {
        "HTTP_PROXY": PROXY,
        "http_proxy": PROXY,
        "HTTPS_PROXY": PROXY,
        "https_proxy": PROXY,
        "NO_PROXY": "localhost,127.0.0.1,::1,.example.org,203.0.113.0/24",
        "no_proxy": "localhost,127.0.0.1,::1,.example.org,203.0.113.0/24",
    }
    assert set(added({"proxy": {"https": PROXY}})) == {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
    assert added({"proxy": {}}) == added({"proxy": {"noProxy": "example.org"}}) == {}


def test_authorities_are_a_file_that_cannot_be_changed() -> None:
    made = pod({"caBundle": "corporate-ca"})
    assert added({"caBundle": "corporate-ca"}) == {"CARREL_KERNEL_AUTHORITIES": "/etc/carrel/authorities/ca.crt"}
    [volume] = [volume for volume in made["spec"]["volumes"] if volume["name"] == "authorities"]
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    assert volume["configMap"] == {"name": "corporate-ca", "items": items, "defaultMode": 0o444}
    [mount] = [mount for mount in made["spec"]["containers"][0]["volumeMounts"] if mount["name"] == "authorities"]
    assert mount == {"name": "authorities", "mountPath": "/etc/carrel/authorities", "readOnly": True}


def test_a_class_without_them_changes_nothing() -> None:
    assert "authorities" not in str(pod({}))
    assert not {"HTTP_PROXY", "http_proxy", "NO_PROXY", "CARREL_KERNEL_AUTHORITIES"} & set(variables(pod({})))


def test_where_the_platform_assigns_users_none_is_named() -> None:
    context = pod({})["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@given(
    proxy=st.from_regex(r"https?://[A-Za-z0-9.-]{1,20}(:[0-9]{1,5})?/?", fullmatch=True),
    direct=st.text(max_size=40),
    bundle=st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True),
)
def test_the_pod_stays_restricted(proxy: str, direct: str, bundle: str) -> None:
    made = pod({"proxy": {"http": proxy, "noProxy": direct}, "caBundle": bundle})
    assert violations(made) == []
    assert not any("secret" in volume or "projected" in volume for volume in made["spec"]["volumes"])
    assert variables(made)["NO_PROXY"].startswith("localhost,127.0.0.1,::1")
