"""Which cluster is chosen. No cluster is needed here.

Plan: only contexts that are plainly for tests are used; a cluster that somebody named and that cannot be used is an
error and never a reason to use another one; without any way, the message holds every reason. Deleting asks for what
was made, not for what making needs: it never passes over a cluster in silence.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from tests.cluster.provider import bare, choice, kind, named
from tests.cluster.provider.base import ProviderError


@pytest.mark.parametrize("context", ["hostcluster", "kind-carrel", "kind-carrel-2", "k3d-carrel", "carrel-test-7"])
def test_known_contexts_are_used(context: str) -> None:
    named.refuse_unknown_context(context)


@pytest.mark.parametrize("context", ["", "production", "kind", "kind-carrelx", "admin@carrel", "my-carrel-test"])
def test_unknown_contexts_are_refused(context: str) -> None:
    with pytest.raises(ProviderError, match="not known to be for tests"):
        named.refuse_unknown_context(context)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")
def test_a_named_kubeconfig_with_an_unknown_context_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "config"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "production",
        "clusters": [{"name": "production", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": {"token": "x"}}],
        "contexts": [{"name": "production", "context": {"cluster": "production", "user": "me"}}],
    }
    kubeconfig.write_text(json.dumps(document))
    monkeypatch.setenv(named.VARIABLE, str(kubeconfig))
    with pytest.raises(ProviderError, match="'production' is not known"):
        choice.choose()


def test_a_named_kubeconfig_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(named.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ProviderError, match="not a file"):
        choice.choose()


def test_without_any_way_every_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(named.VARIABLE, raising=False)
    monkeypatch.setattr(kind, "missing", lambda: "no container engine runs")
    monkeypatch.setattr(bare, "missing", lambda: "needs root")
    with pytest.raises(choice.NoCluster) as caught:
        choice.choose()
    assert str(caught.value) == (
        "no Kubernetes cluster for tests: CARREL_TEST_KUBECONFIG is not set; no container engine runs; needs root"
    )


def test_deleting_where_none_was_made_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "STATE", tmp_path / "none")
    monkeypatch.setattr(bare, "locked", lambda: pytest.fail("nothing is there to remove"))
    monkeypatch.setattr(kind, "missing", lambda: "no container engine runs")
    assert not choice.delete()


def test_only_root_can_delete_and_others_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "STATE", tmp_path)
    monkeypatch.setattr(bare, "locked", lambda: pytest.fail("must be refused before"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ProviderError, match="run make cluster-down as root"):
        bare.delete()


def test_deleting_needs_neither_go_nor_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[bool] = []
    monkeypatch.setattr(bare, "STATE", tmp_path)
    monkeypatch.setattr(bare, "locked", contextlib.nullcontext)
    monkeypatch.setattr(bare, "down", lambda: removed.append(True))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bare.delete()
    assert removed == [True]
