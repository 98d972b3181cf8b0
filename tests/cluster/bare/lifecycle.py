"""Starting and ending the bare-host cluster. Callers hold the lock of `locked`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Generator
from pathlib import Path

from tests.cluster.bare import addons, network
from tests.cluster.bare.api import api_answers, ctr, kubectl, node_ready
from tests.cluster.bare.archive import write_archive
from tests.cluster.bare.configuration import write_configuration
from tests.cluster.bare.identities import make_certificates, make_kubeconfigs
from tests.cluster.bare.layout import (
    ADMIN,
    AUDIT,
    BRIDGE,
    CACHE,
    COMPONENTS,
    CONF,
    CONTAINERD,
    ETCD,
    ETCD_PEER,
    KUBERNETES,
    LOCK,
    LOGS,
    NODE,
    NODE_IP,
    PAUSE_IMAGE,
    PIDS,
    PKI,
    POD_CIDR,
    RUN,
    SERVICE_CIDR,
    STATE,
)
from tests.cluster.bare.processes import Components, began_at, end, end_pods, lives, recorded, session
from tests.cluster.bare.programs import binary, install_packages, pause
from tests.cluster.bare.shell import ClusterError, run, succeeds


@contextlib.contextmanager
def locked() -> Generator[None]:
    """Keep every other `up` and `down` of this host waiting.

    Raises
    ------
    ClusterError
        The caller is not root.
    """
    if os.geteuid():
        raise ClusterError("a cluster on the bare host needs root")
    with LOCK.open("w") as lock:  # the components do not inherit it
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up() -> Path:
    """Start the cluster, or find the one that runs; return the path of an admin kubeconfig.

    Raises
    ------
    ClusterError
        A component does not start.
    """
    if STATE.exists():
        ended = [name for name in COMPONENTS if not lives(name)]
        if not ended and api_answers() and node_ready():
            return ADMIN
        _say(f"found a broken cluster ({', '.join(ended) or 'no answer'}); starting anew")
        down()
    install_packages()
    program = binary()
    began = time.monotonic()
    for folder in (LOGS, STATE / "etcd", RUN):
        folder.mkdir(parents=True, exist_ok=True)
    (STATE / "etcd").chmod(0o700)
    make_certificates(PKI)
    make_kubeconfigs(CONF, PKI / "ca.crt")
    network.make_bridge()
    write_configuration()
    components = Components()
    _start_control_plane(components, program)
    _start_node(components, program)
    addons.apply_dns()
    components.wait("node", node_ready, 60)
    components.wait("kube-proxy", lambda: f"-d {SERVICE_CIDR[1]}/32" in run("iptables-save", "-t", "nat"), 30)
    components.wait(
        "default service account", lambda: "/default\n" in kubectl("get", "serviceaccounts", "-o", "name"), 30
    )
    addons.start_volumes(components)
    addons.wait_for_dns()
    _say(f"Kubernetes {KUBERNETES} ready in {time.monotonic() - began:.1f} s")
    return ADMIN


def _say(message: str) -> None:
    sys.stderr.write(f"hostcluster: {message}\n")


def _start_control_plane(components: Components, program: Path) -> None:
    components.start(
        "etcd", program, "etcd", f"--name={NODE}", f"--data-dir={STATE}/etcd", f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}", f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}", f"--initial-cluster={NODE}={ETCD_PEER}", "--unsafe-no-fsync",
        "--log-level=warn",
    )  # fmt: skip
    components.start("containerd", "containerd", "--config", STATE / "containerd.toml")
    components.start(
        "kube-apiserver", program, "kube-apiserver", f"--etcd-servers={ETCD}", f"--bind-address={NODE_IP}",
        f"--advertise-address={NODE_IP}", f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--client-ca-file={PKI}/ca.crt", f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key", f"--token-auth-file={CONF}/tokens.csv",
        f"--requestheader-client-ca-file={PKI}/ca.crt", "--requestheader-allowed-names=front-proxy",
        f"--service-account-issuer=https://{NODE_IP}:6443", f"--service-account-key-file={PKI}/sa.pub",
        f"--service-account-signing-key-file={PKI}/sa.key",
        f"--kubelet-client-certificate={PKI}/kubelet-client.crt", f"--kubelet-client-key={PKI}/kubelet-client.key",
        f"--kubelet-certificate-authority={PKI}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--audit-policy-file={STATE}/audit-policy.yaml", f"--audit-log-path={AUDIT}",
        "--audit-log-maxsize=256", "--audit-log-maxbackup=2",  # MB and files: three quarters of a GB at most
    )  # fmt: skip
    components.wait("kube-apiserver", api_answers, 60)
    client = ("--leader-elect=false", "--bind-address=127.0.0.1", "--kube-api-qps=500", "--kube-api-burst=1000")
    manager = (
        f"--service-account-private-key-file={PKI}/sa.key", f"--root-ca-file={PKI}/ca.crt",
        "--use-service-account-credentials", f"--cluster-cidr={POD_CIDR}",
    )  # fmt: skip
    for name, own in (("kube-controller-manager", manager), ("kube-scheduler", ())):
        conf = f"{CONF}/{name}.conf"
        identity = (f"--kubeconfig={conf}", f"--authentication-kubeconfig={conf}", f"--authorization-kubeconfig={conf}")
        components.start(name, program, name, *identity, *client, *own)


def _start_node(components: Components, program: Path) -> None:
    components.wait("containerd", CONTAINERD.exists, 30)
    ctr("images", "import", write_archive(pause(), "/pause", PAUSE_IMAGE, STATE / "pause.tar"))
    components.start("network-policies", program, "network-policies", f"--kubeconfig={ADMIN}", f"--bridge={BRIDGE}")
    hook = ("iptables", "-w", "-t", "mangle", "-C", "INPUT", "-i", BRIDGE, "-j", "HOSTCLUSTER-POLICY")
    components.wait("network-policies", lambda: succeeds(*hook), 30)  # before there can be a pod
    components.start(
        "kubelet", program, "kubelet", f"--config={STATE}/kubelet.yaml", f"--kubeconfig={CONF}/kubelet.conf",
        f"--hostname-override={NODE}", f"--node-ip={NODE_IP}", f"--root-dir={STATE}/kubelet",
    )  # fmt: skip
    components.start("kube-proxy", program, "kube-proxy", f"--config={STATE}/proxy.yaml")


def down() -> None:
    """End every process of the cluster and remove everything that it made; nothing, where none was made.

    What another Kubernetes on this host has (pods, network namespaces, chains) stays.

    Raises
    ------
    ClusterError
        Something is still mounted below its folders; they are left as they are.
    """
    if not STATE.exists():
        return
    others = _end_components()
    _unmount()
    if others:
        _say("another Kubernetes runs pods on this host: chains named KUBE-… stay")
    else:
        for program in CACHE.glob("*/hostcluster"):
            succeeds(program, "kube-proxy", "--cleanup")
            break
    network.remove_rules(network.OWN_CHAINS if others else network.CHAINS)
    network.remove_bridge()
    _remove_runtime_leftovers()
    network.restore_sysctls()
    mounted = _mounts()
    for folder in (RUN, STATE):
        if any(target.startswith(f"{folder}/") for target in mounted):
            raise ClusterError(f"something is still mounted below {folder}; left as it is")
        shutil.rmtree(folder, ignore_errors=True)


def _end_components() -> bool:
    """End the components and the pods; tell whether pods of another Kubernetes run here."""
    left: set[int] = set()
    for name in COMPONENTS:
        if not (PIDS / name).exists():
            continue
        pid, alive = recorded(name)
        if alive or not began_at(pid):  # another process under this id has a session of its own
            left |= session(pid) - {pid}
        if alive:
            end({pid}, patience=0 if name in ("etcd", "kube-apiserver") else 3)  # their data goes anyway
    others = end_pods()
    end(left, patience=0)
    return others


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1].encode().decode("unicode_escape") for line in lines]


def _unmount() -> None:
    for _ in range(3):  # one mount may hide another
        for target in reversed(_mounts()):
            if target.startswith((f"{STATE}/", f"{RUN}/")):
                succeeds("umount", "--lazy", target)


def _remove_runtime_leftovers() -> None:
    for address in (RUN / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    for log in Path("/var/log/containers").glob("*.log"):
        if log.is_symlink() and str(log.readlink()).startswith(f"{STATE}/"):
            log.unlink()
