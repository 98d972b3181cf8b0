"""What follows from a look: whatever was not seen to be closed is not called so, and policies of others are found.

Plan: every combination of outcomes (with a foreign policy, without a look, of a host that was seen before) has the one
condition that a table written by hand says; label selectors are compared with an oracle over sets, on random selectors
and labels from a small alphabet, and with examples; foreign policies are told from own ones.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.carrel_operator.factories import session, session_class

from carrel_api.common import Egress
from carrel_operator.builders.network_policy import egress_policy, namespace_policies
from carrel_operator.builders.pod import kernel_pod
from carrel_operator.isolation import foreign_policies, is_foreign, isolated, selects
from carrel_operator.settlement import Settlement, settle
from carrel_operator.sight import Sight
from carrel_operator.status import MAX_MESSAGE
from carrel_wire.host import ReachOutcome

NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
OUTCOMES: tuple[ReachOutcome, ...] = get_args(ReachOutcome)


def sight(kernel: ReachOutcome, closed: ReachOutcome, from_pod: ReachOutcome | None, why: str = "why") -> Sight:
    return Sight(kernel, closed, from_pod, NOW, why)


GOOD = sight("connected", "timeout", "timeout")


def test_only_silence_beside_a_kernel_port_that_connects_is_isolation():
    found = {
        outcomes: (isolated(sight(*outcomes)).status, isolated(sight(*outcomes)).reason)
        for outcomes in product(OUTCOMES, OUTCOMES, (*OUTCOMES, None))
    }
    for (kernel, closed, from_pod), said in found.items():
        if "connected" in (closed, from_pod):
            wanted = ("False", "NotEnforced")
        elif kernel != "connected":
            wanted = ("Unknown", "NotSeen")
        elif closed in ("refused", "unreachable"):
            wanted = ("False", "ClosedPortRefused")
        elif from_pod is None:
            wanted = ("Unknown", "NotSeen")
        elif from_pod in ("refused", "unreachable"):
            wanted = ("False", "OperatorRefused")
        else:
            wanted = ("True", "Enforced")
        assert said == wanted, (kernel, closed, from_pod)
    assert [outcomes for outcomes, said in found.items() if said[0] == "True"] == [("connected", "timeout", "timeout")]


def test_a_bound_host_that_was_seen_before_need_not_be_asked_again_but_what_is_seen_now_counts():
    later = sight("connected", "timeout", None)
    assert isolated(later).reason == "NotSeen"
    assert isolated(later, asked_before=True).status == "True"
    for closed in ("connected", "refused", "unreachable"):
        assert isolated(sight("connected", closed, None), asked_before=True).status == "False"
    assert isolated(sight("timeout", "timeout", None), asked_before=True).status == "Unknown"
    assert isolated(sight("connected", "timeout", "connected"), asked_before=True).status == "False"


@pytest.mark.parametrize("seen", [None, GOOD, sight("connected", "connected", "connected")])
def test_a_foreign_policy_is_said_first_whatever_was_seen(seen: Sight | None):
    said = isolated(seen, foreign=["open-all"])
    assert (said.type, said.status, said.reason) == ("Isolated", "False", "ForeignPolicy")
    assert "open-all" in said.message
    assert "delete it" in said.message


def test_no_look_is_unknown_and_why_a_pod_was_not_asked_is_told():
    assert (isolated(None).status, isolated(None).reason) == ("Unknown", "NotSeen")
    assert isolated(sight("connected", "timeout", None, "set CARREL_POD_IP")).message == "set CARREL_POD_IP"


def test_messages_say_what_to_do_and_are_never_too_long():
    assert "install a network plug-in" in isolated(sight("connected", "connected", None)).message
    assert "plug-in drop what policies deny" in isolated(sight("connected", "refused", "timeout")).message
    many = isolated(None, foreign=[f"{number:03}-{'x' * 249}"[:253] for number in range(100)])
    assert "and 95 more" in many.message
    assert len(many.message) > MAX_MESSAGE  # names may be 253 long: `conditions` cuts


KEYS, VALUES = st.sampled_from(["app", "tier", "carrel.dev/component"]), st.sampled_from(["", "a", "b", "kernel"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=3)
EXPRESSIONS = st.one_of(
    st.fixed_dictionaries(
        {"key": KEYS, "operator": st.sampled_from(["In", "NotIn"]), "values": st.lists(VALUES, min_size=1, max_size=3)}
    ),
    st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
SELECTORS = st.none() | st.fixed_dictionaries(
    {}, optional={"matchLabels": st.none() | LABELS, "matchExpressions": st.none() | st.lists(EXPRESSIONS, max_size=3)}
)


def oracle(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """Say the same over the set of all pairs: a selector is a set of pairs and tests on that set."""
    pairs, keys = set(labels.items()), set(labels)
    selector = selector or {}
    wrong = set((selector.get("matchLabels") or {}).items()) - pairs
    for one in selector.get("matchExpressions") or []:
        named = {(one["key"], value) for value in one.get("values", [])}
        holds = {
            "In": bool(named & pairs),
            "NotIn": not named & pairs,
            "Exists": {one["key"]} <= keys,
            "DoesNotExist": {one["key"]}.isdisjoint(keys),
        }
        if not holds[one["operator"]]:
            wrong.add((one["key"], one["operator"]))
    return not wrong


@given(selector=SELECTORS, labels=LABELS)
@example(selector={"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, labels={})
@example(selector={"matchLabels": {"app": ""}}, labels={})
def test_selectors_fit_as_the_oracle_says(selector: dict[str, Any] | None, labels: dict[str, str]):
    assert selects(selector, labels) is oracle(selector, labels)


@given(labels=LABELS, key=KEYS, values=st.lists(VALUES, min_size=1, max_size=3))
def test_each_operator_has_its_opposite(labels: dict[str, str], key: str, values: list[str]):
    def fits(operator: str) -> bool:
        return selects({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}, labels)

    assert fits("In") is not fits("NotIn")
    assert fits("Exists") is not fits("DoesNotExist")


def test_an_operator_of_a_later_kubernetes_counts_as_fitting():
    assert selects({"matchExpressions": [{"key": "app", "operator": "Gt", "values": ["1"]}]}, {})


def kernel_labels() -> dict[str, str]:
    settled = settle(session().spec, session_class())
    assert isinstance(settled, Settlement)
    return kernel_pod(session(), settled)["metadata"]["labels"]


def policy(name: str, selector: dict[str, Any] | None, **metadata: Any) -> dict[str, Any]:
    spec = {"policyTypes": ["Egress"], "egress": [{}], **({} if selector is None else {"podSelector": selector})}
    return {"metadata": {"name": name, "namespace": "carrel-sessions", **metadata}, "spec": spec}


def own_egress() -> dict[str, Any]:
    made = egress_policy(session(), [Egress(cidr="203.0.113.0/24", ports=[443])])
    assert made is not None
    return made


def test_policies_of_others_that_select_the_pod_are_found_and_own_ones_are_not():
    policies = [
        *namespace_policies("carrel-sessions", []),
        own_egress(),
        policy("z-everything", {}),
        policy("without-a-selector", None),
        policy("by-class", {"matchLabels": {"carrel.dev/class": "standard"}}),
        policy("all-but-web", {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
        policy("other-session", {"matchLabels": {"carrel.dev/session": "f" * 32}}),
        policy("web", {"matchLabels": {"app": "web"}}),
    ]
    found = foreign_policies(policies, kernel_labels())
    assert found == ("all-but-web", "by-class", "without-a-selector", "z-everything")
    assert foreign_policies(policies, {"app": "web"}) == ("web", "without-a-selector", "z-everything")


def test_an_egress_policy_is_known_by_its_name_its_owner_and_its_selector_together():
    name, owners = own_egress()["metadata"]["name"], own_egress()["metadata"]["ownerReferences"]
    own = own_egress()["spec"]["podSelector"]
    assert not is_foreign(policy(name, own, ownerReferences=owners))
    assert is_foreign(policy(name, own))
    assert is_foreign(policy("another", own, ownerReferences=owners))
    assert is_foreign(policy(name, own, ownerReferences=[{**owners[0], "uid": "another"}]))
    assert is_foreign(policy(name, own, ownerReferences=[{**owners[0], "controller": False}]))
    assert is_foreign(policy(name, own, ownerReferences=[{**owners[0], "kind": "ReplicaSet"}]))
    for wider in ({}, None, {"matchLabels": {"carrel.dev/component": "kernel"}}):
        assert is_foreign(policy(name, wider, ownerReferences=owners))
