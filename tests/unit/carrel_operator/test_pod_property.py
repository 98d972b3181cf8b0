"""Whatever session the schema accepts, under whatever class, its pod is restricted: random objects, and an own checker.

Each random document is first put to the generated schema itself (jsonschema), so that the strategy cannot drift from
what the API server would accept. Sessions that the class refuses get no pod, which the last test makes sure is not
what happens to all of them.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.support.pod_security import violations

from carrel_api.crds import definitions
from carrel_api.environment import refused_name
from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClass
from carrel_operator.builders.identity import hash_of
from carrel_operator.builders.pod import kernel_pod
from carrel_operator.settlement import Settlement, settle

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
CPU = st.one_of(st.integers(1, 64), st.sampled_from(["1", "0.5", "250m", "1.25", "64"]))
BYTES = st.one_of(st.integers(2**27, 2**40), st.sampled_from(["128Mi", "1Gi", "1.5Gi", "64Gi", "2T"]))
TEXT = st.text(max_size=30)
VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True).filter(lambda name: not refused_name(name))
CIDRS = st.sampled_from(["0.0.0.0/0", "203.0.113.0/24", "10.0.0.0/8", "169.254.169.254/32", "::/0", "2001:db8::/32"])
EGRESS = st.lists(
    st.fixed_dictionaries({"cidr": CIDRS, "ports": st.lists(st.integers(1, 65535), min_size=1, max_size=3)}), max_size=3
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, each or not."""
    return st.fixed_dictionaries({}, optional=fields)


SPECS = some(
    image=st.sampled_from(["", "python", "none"]),
    resources=some(cpu=CPU, memory=BYTES, ephemeralStorage=BYTES, gpu=st.integers(0, 64)),
    env=st.lists(
        st.fixed_dictionaries({"name": VARIABLES, "value": TEXT}), max_size=5, unique_by=lambda entry: entry["name"]
    ),
    datasets=st.lists(st.sampled_from(["weather", "other"]), unique=True),
    workspace=some(type=st.sampled_from(["Ephemeral", "Persistent"]), size=BYTES),
    network=some(egress=EGRESS),
    operatingMode=st.sampled_from(["Running", "Suspended"]),
    owner=TEXT,
    tenant=TEXT,
    idleTimeoutSeconds=st.integers(1, 31_536_000),
)
MODULES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}([.][A-Za-z_][A-Za-z0-9_]{0,9}){0,2}", fullmatch=True)
PROXIES = st.from_regex(r"https?://[A-Za-z0-9.-]{1,20}(:[0-9]{1,5})?/?", fullmatch=True)
CLASSES = some(
    maximumResources=st.fixed_dictionaries(
        {"cpu": CPU, "memory": BYTES, "ephemeralStorage": BYTES, "gpu": st.integers(0, 64)}
    ),
    runtimeClassName=NAMES,
    userNamespace=st.sampled_from(["Required", "Off"]),
    runAsUser=st.integers(1, 4_294_967_294),
    nodeSelector=st.dictionaries(NAMES, NAMES, max_size=3),
    tolerations=st.lists(
        some(
            key=NAMES,
            operator=st.sampled_from(["Exists", "Equal"]),
            value=NAMES,
            effect=st.sampled_from(["NoSchedule", "NoExecute"]),
            tolerationSeconds=st.integers(0, 1000),
        ),
        max_size=3,
    ),
    priorityClassName=NAMES,
    pullSecrets=st.lists(NAMES, max_size=3, unique=True),
    egress=EGRESS,
    datasets=st.just([{"name": "weather", "claimName": "weather"}, {"name": "other", "claimName": "other"}]),
    kernels=st.fixed_dictionaries(
        {
            "preload": st.lists(MODULES, max_size=3, unique=True),
            "spare": st.integers(0, 8),
            "allowedImports": st.lists(MODULES, max_size=3, unique=True),
        }
    ),
    proxy=some(http=PROXIES, https=PROXIES, noProxy=TEXT),
    caBundle=NAMES,
    isolation=st.sampled_from(["Required", "Preferred"]),
    workspace=st.fixed_dictionaries({"maximumSize": st.just("2T"), "defaultSize": st.sampled_from(["1Gi", "100M"])}),
)


def validator(file: str) -> Draft202012Validator:
    schema = definitions()[file]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return Draft202012Validator(schema)


SESSION_SCHEMA, CLASS_SCHEMA = validator("agentsessions.yaml"), validator("sessionclasses.yaml")


def objects(spec: dict[str, Any], allowed: dict[str, Any]) -> tuple[AgentSession, SessionClass]:
    allowed = {"images": [{"name": "python", "reference": "example.org/kernel:1"}], "allowTags": True, **allowed}
    SESSION_SCHEMA.validate(spec)
    CLASS_SCHEMA.validate(allowed)
    session = {"metadata": {"name": "desk", "namespace": "sessions", "uid": "uid-1"}, "spec": spec}
    return AgentSession.parse(session), SessionClass.parse({"metadata": {"name": "c"}, "spec": allowed})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS, allowed=CLASSES)
def test_every_pod_is_restricted(spec: dict[str, Any], allowed: dict[str, Any]):
    session, session_class = objects(spec, allowed)
    settled = settle(session.spec, session_class)
    if not isinstance(settled, Settlement):
        return
    pod = kernel_pod(session, settled)
    assert violations(pod) == []
    [container] = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False
    assert not any("secret" in volume or "projected" in volume for volume in pod["spec"]["volumes"])
    assert container["image"] == "example.org/kernel:1"


@settings(max_examples=100, deadline=None)
@given(spec=SPECS)
def test_nothing_that_a_person_writes_reaches_labels_environment_or_names_as_it_is(spec: dict[str, Any]):
    session, session_class = objects(spec, {"datasets": [{"name": "weather", "claimName": "weather"}]})
    settled = settle(session.spec, session_class)
    if not isinstance(settled, Settlement):
        return
    pod = kernel_pod(session, settled)
    labels = pod["metadata"]["labels"]
    assert labels["carrel.dev/session"] == hash_of("uid-1")
    assert labels.get("carrel.dev/owner") == (hash_of(spec["owner"]) if spec.get("owner") else None)
    variables = {entry["name"] for entry in pod["spec"]["containers"][0]["env"]}
    assert variables == {
        "CARREL_KERNEL_CLOSED_LISTEN",
        "CARREL_KERNEL_HOST_ID",
        "CARREL_KERNEL_KEYS",
        "CARREL_KERNEL_LISTEN",
        "CARREL_KERNEL_PRELOAD",
        "CARREL_KERNEL_SPARE_KERNELS",
        "CARREL_KERNEL_WORKSPACE",
        "HOME",
        "MPLCONFIGDIR",
    }


def test_an_ordinary_session_does_get_a_pod():
    session, session_class = objects({"resources": {"cpu": 1, "memory": "1Gi"}}, {})
    assert isinstance(settle(session.spec, session_class), Settlement)
