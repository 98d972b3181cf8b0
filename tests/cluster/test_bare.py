"""The bare-host cluster itself: what its modules write, and that it can be found, broken, mended and removed.

Plan: an archive of one binary is one that containerd imports (every pod of the cluster shows it) and is the same for
the same input; the identity of a process is not that of a later one with its id; configuration keeps raw sockets from
pods. Removing ends and deletes what belongs to this cluster's pods alone, and nothing where no cluster was made. The
soak test kills each component with SIGKILL, starts again, removes the cluster and looks for what stayed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.cluster.bare import api, archive, configuration, layout, lifecycle, network, processes, volumes
from tests.cluster.bare.shell import ClusterError
from tests.cluster.provider import bare
from tests.cluster.provider.base import Cluster

NEEDS_HOST = pytest.mark.skipif(bare.missing() is not None, reason=bare.missing() or "")


def test_an_archive_holds_the_binary_and_is_reproducible(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF")
    first = archive.write_archive(binary, "/sub/run", "localhost/x:1", tmp_path / "a.tar").read_bytes()
    assert archive.write_archive(binary, "/sub/run", "localhost/x:1", tmp_path / "b.tar").read_bytes() == first
    with tarfile.open(tmp_path / "a.tar") as outer:
        names = outer.getnames()
        manifest = json.load(outer.extractfile("manifest.json"))[0]  # pyright: ignore[reportArgumentType] it is a file
        layer = outer.extractfile(manifest["Layers"][0])
        with tarfile.open(fileobj=layer) as inner:
            member = inner.getmember("sub/run")
            assert (member.mode, member.size) == (0o755, 4)
    assert manifest["RepoTags"] == ["localhost/x:1"]
    assert manifest["Config"] in names


def test_a_process_is_told_from_a_later_one() -> None:
    assert processes.began_at(os.getpid()) == processes.began_at(os.getpid()) != ""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.began_at(child.pid) not in {"", processes.began_at(os.getpid())}
    processes.end({child.pid}, patience=5)
    assert processes.began_at(child.pid) == ""  # its corpse is still there
    child.communicate()


def test_a_process_that_ignores_politeness_is_ended() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    processes.end({child.pid}, patience=0.1)
    assert child.wait(timeout=10) == -signal.SIGKILL
    child.stdout.close()


def sleeper(cgroup: Path) -> subprocess.Popen[bytes]:
    """A process that a cgroup names as its own; files stand in for the kernel's, which only root may make."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text(f"{child.pid}\n")
    return child


def test_only_pods_of_our_kubelet_are_ended(tmp_path: Path) -> None:
    pods, cgroups = tmp_path / "pods", tmp_path / "cgroup"
    (pods / "1-ours").mkdir(parents=True)
    ours = sleeper(cgroups / "unified" / "kubepods" / "burstable" / "pod1-ours" / "container")
    other = sleeper(cgroups / "unified" / "kubepods" / "burstable" / "pod2-theirs" / "container")
    try:
        assert processes.end_pods(cgroups, pods), "there are pods of another Kubernetes"
        assert ours.wait(timeout=10) < 0
        assert other.poll() is None
        assert (cgroups / "unified" / "kubepods" / "burstable" / "pod2-theirs").exists()
    finally:
        for child in (ours, other):
            child.kill()
            child.communicate()
    assert not processes.end_pods(cgroups, pods)


def test_only_network_namespaces_of_our_network_are_named(tmp_path: Path) -> None:
    def result(name: str, sandbox: str) -> None:
        interfaces = [{"name": "hc0"}, {"name": "eth0", "sandbox": f"/var/run/netns/{sandbox}"}]
        (tmp_path / name).write_text(json.dumps({"result": {"interfaces": interfaces}}))

    result(f"{layout.NODE}-1-eth0", "cni-ours")
    result("kindnet-2-eth0", "cni-theirs")
    (tmp_path / f"{layout.NODE}-3-eth0").write_text("{")  # cut off
    assert network.namespaces(tmp_path) == {"cni-ours"}


def test_where_no_cluster_was_made_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> bool:
        raise AssertionError("something was removed")

    monkeypatch.setattr(lifecycle, "STATE", tmp_path / "none")
    monkeypatch.setattr(lifecycle, "_end_components", touched)  # the first step, so that none is taken on this host
    lifecycle.down()


def test_a_missing_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is not a file"):
        api.load(tmp_path / "none.tar")


def test_a_claim_becomes_a_volume_of_its_own() -> None:
    claim = {
        "metadata": {"name": "work", "namespace": "a", "uid": "u"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    made = volumes.volume("pvc-u", claim, Path("/volumes/pvc-u"))
    assert made["spec"]["claimRef"]["uid"] == "u"
    assert made["spec"]["capacity"] == {"storage": "1Gi"}
    assert made["spec"]["local"] == {"path": "/volumes/pvc-u"}
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


@NEEDS_HOST
def test_up_finds_the_running_cluster(cluster: Cluster) -> None:
    if not isinstance(cluster, bare.BareCluster):
        pytest.skip("another cluster is used")
    before = {name: processes.recorded(name) for name in layout.COMPONENTS}
    found = bare.find()
    assert isinstance(found, bare.BareCluster)
    assert {name: processes.recorded(name) for name in layout.COMPONENTS} == before
    assert all(alive for _, alive in before.values())
    runtime = json.loads((layout.STATE / "runtime-spec.json").read_text())
    assert "CAP_NET_RAW" not in str(runtime)
    assert str(layout.RUN) in configuration.CONTAINERD_TOML


def leftovers() -> list[str]:
    """Everything on this host that would come from the cluster."""
    rules = [line for tool in ("iptables-save", "ip6tables-save") for line in output(tool) if any(
        mark in line for mark in (*network.CHAINS, layout.BRIDGE))]  # fmt: skip
    links = [line for line in output("ip", "-o", "link") if layout.BRIDGE in line]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "hostcluster" in line]
    folders = [str(path) for path in (layout.STATE, layout.RUN) if path.exists()]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob("*/kubepods")]
    return [*rules, *links, *mounts, *folders, *cgroups]


def output(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


@NEEDS_HOST
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_broken_cluster_is_mended_and_a_removed_one_leaves_nothing() -> None:
    with lifecycle.locked():
        lifecycle.up()
        for name in layout.COMPONENTS:
            pid, alive = processes.recorded(name)
            assert alive, name
            processes.end({pid}, patience=0)
            lifecycle.up()
            assert processes.lives(name), name
        lifecycle.down()
        assert leftovers() == []
        lifecycle.down()  # again: nothing to do
        assert leftovers() == []
