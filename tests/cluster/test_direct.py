"""What tests ask the API server without kubectl: the same objects, the same refusals.

Plan: words of `kubectl get` are read as it reads them, and others left to it; for each form that tests use, the answer
is kubectl's to the letter; what is applied is as kubectl would have applied it, under its name; what is refused, not
there or served by nobody is an error in kubectl's words; a kind that is new is known at once.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from tests.cluster.provider.base import Cluster, KubectlError
from tests.cluster.provider.direct import Direct, Missing, Query, Unknown, read_query

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("pods", Query(["pods"], [])),
        ("pod one -n a", Query(["pod"], ["one"], "a")),
        ("pod one two --namespace=a", Query(["pod"], ["one", "two"], "a")),
        ("pod/one -n=a", Query(["pod"], ["one"], "a")),
        ("pods,secrets --namespace a", Query(["pods", "secrets"], [], "a")),
        ("pods -A -l=app=x", Query(["pods"], [], everywhere=True, selectors={"labelSelector": "app=x"})),
        ("pods --all-namespaces --selector=a!=b", Query(["pods"], [], None, True, {"labelSelector": "a!=b"})),
        ("pods --field-selector=spec.nodeName=n", Query(["pods"], [], selectors={"fieldSelector": "spec.nodeName=n"})),
    ],
)
def test_words_that_are_known(words: str, wanted: Query) -> None:
    assert read_query(words.split()) == wanted


@pytest.mark.parametrize(
    "words",
    ["", "-n a", "pods -n", "pods --as=somebody", "pods --raw", "pods,secrets one", "pod/one pod/two", "pods one -A"],
)
def test_words_that_are_kubectls(words: str) -> None:
    with pytest.raises(Unknown):
        read_query(words.split())


def config_map(name: str, namespace: str, value: str = "1") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "direct"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": value}}


@pytest.fixture
def direct(cluster: Cluster) -> Direct:
    return Direct(cluster.kubeconfig)


def by_kubectl(cluster: Cluster, words: list[str]) -> Any:
    return json.loads(cluster.kubectl("get", *words, "--output=json"))


def test_answers_are_those_of_kubectl(cluster: Cluster, direct: Direct, namespace: str) -> None:
    for name in ("one", "two"):
        cluster.apply(config_map(name, namespace))
    for words in (
        "configmap one -n NS",
        "cm/one -n=NS",
        "configmaps one two --namespace=NS",
        "configmaps -n NS -l=app=direct",
        "configmaps -n NS --selector app!=direct",
        "configmaps,serviceaccounts -n NS",
        "ConfigMap --all-namespaces --field-selector=metadata.name=one",
        "namespace NS",
        "namespaces",
        "crd",
        "services kubernetes",
        "deployments.apps coredns --namespace=kube-system",
        "hpa -n NS",
        "networkpolicies -n NS",
        "lease -n kube-system",
    ):
        asked = words.replace("NS", namespace).split()
        for _ in range(5):  # what controllers write in between
            before = by_kubectl(cluster, asked)
            found = direct.get(*asked)
            if before == found or before == by_kubectl(cluster, asked):
                break
        assert found == before, words


def test_what_is_not_there_is_told_in_kubectls_words(cluster: Cluster, direct: Direct, namespace: str) -> None:
    for words in (["configmap", "none", "-n", namespace], ["namespace", "none-of-these"]):
        with pytest.raises(KubectlError) as by_it:
            by_kubectl(cluster, words)
        with pytest.raises(Missing) as missing:
            direct.get(*words)
        assert str(missing.value) == str(by_it.value)
        with pytest.raises(KubectlError) as caught:
            cluster.get(*words)
        assert str(caught.value) == str(by_it.value)
        assert cluster.find(*words) is None
    with pytest.raises(KubectlError, match="the server doesn't have a resource type"):
        cluster.get("unheardof")
    with pytest.raises(KubectlError, match="the server doesn't have a resource type"):
        cluster.find("unheardof", "x")


def test_what_is_applied_is_as_kubectl_applies_it(cluster: Cluster, direct: Direct, namespace: str) -> None:
    for name in ("direct", "kubectl"):
        for value in ("1", "2"):
            wanted = config_map(name, namespace, value)
            if name == "direct":
                direct.apply(wanted, None)
            else:
                cluster.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(wanted))
    shown = []
    for name in ("direct", "kubectl"):
        words = ("get", "configmap", name, f"--namespace={namespace}", "--output=json", "--show-managed-fields")
        found = json.loads(cluster.kubectl(*words))
        for field in ("name", "uid", "resourceVersion", "creationTimestamp"):
            del found["metadata"][field]
        for entry in found["metadata"]["managedFields"]:
            del entry["time"]
        shown.append(found)
    assert shown[0] == shown[1]
    named = config_map("by-namespace", namespace)
    del named["metadata"]["namespace"]
    cluster.apply(named, namespace=namespace)
    assert cluster.get("cm", "by-namespace", "-n", namespace)["data"] == {"a": "1"}


def test_what_is_refused_is_told_by_kubectl_and_the_rest_is_done(
    cluster: Cluster, direct: Direct, namespace: str
) -> None:
    wrong = {**config_map("wrong", namespace), "data": {"a b": "1"}}
    with pytest.raises(KubectlError, match='ConfigMap "wrong" is invalid'):
        cluster.apply(config_map("before", namespace), wrong, config_map("after", namespace))
    found = {item["metadata"]["name"] for item in cluster.get("cm", "-n", namespace, "-l=app=direct")["items"]}
    assert found == {"before", "after"}
    for refused in (wrong, {**config_map("misspelt", namespace), "dato": {}}):
        with pytest.raises(Unknown):
            direct.apply(refused, None)
        assert cluster.find("configmap", refused["metadata"]["name"], "-n", namespace) is None
    with pytest.raises(KubectlError, match='namespaces "nowhere-at-all" not found'):
        cluster.apply(config_map("x", "nowhere-at-all"))


def test_what_is_merged_and_deleted(cluster: Cluster, direct: Direct, namespace: str) -> None:
    cluster.apply(config_map("one", namespace), config_map("two", namespace))
    cluster.patch("configmap", "one", {"data": {"a": None, "b": "2"}}, namespace=namespace)
    assert cluster.get("cm", "one", "-n", namespace)["data"] == {"b": "2"}
    with pytest.raises(KubectlError, match='configmaps "none" not found'):
        cluster.patch("configmap", "none", {"data": {}}, namespace=namespace)
    with pytest.raises(KubectlError, match='ConfigMap "one" is invalid'):
        cluster.patch("configmap", "one", {"data": {"a b": "1"}}, namespace=namespace)
    cluster.patch("namespace", namespace, {"status": {"phase": "Active"}}, subresource="status")
    cluster.delete("configmap", "one", "never", "two", namespace=namespace)
    assert cluster.get("configmap", "-n", namespace, "-l=app=direct")["items"] == []
    with pytest.raises(Missing):
        direct.delete("configmap", "one", namespace)


def test_a_kind_that_is_new_is_known_at_once(cluster: Cluster, direct: Direct) -> None:
    direct.get("namespaces")
    word = f"thing{secrets.token_hex(3)}"
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": f"{word}s", "singular": word, "kind": word.title()}
    spec = {"group": "direct.test", "names": names, "scope": "Cluster", "versions": [version]}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{word}s.direct.test"},
        "spec": spec,
    }
    try:
        cluster.apply(definition)
        cluster.kubectl("wait", f"crd/{word}s.direct.test", "--for=condition=Established", "--timeout=60s")
        made = {"apiVersion": "direct.test/v1", "kind": word.title(), "metadata": {"name": "a"}}
        cluster.apply(made)
        assert direct.get(word, "a")["metadata"]["name"] == "a"
        assert len(direct.get(f"{word}s.direct.test")["items"]) == 1
    finally:
        cluster.kubectl("delete", "crd", f"{word}s.direct.test", "--ignore-not-found")
    with pytest.raises(KubectlError):
        cluster.get(word, "a")
