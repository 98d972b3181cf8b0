"""Configuration files of containerd, CNI, kubelet, kube-proxy and the API server's audit log."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.cluster.bare.layout import (
    BRIDGE,
    CONF,
    CONTAINERD,
    NODE,
    NODE_IP,
    PAUSE_IMAGE,
    PKI,
    POD_CIDR,
    RUN,
    SERVICE_CIDR,
    STATE,
)
from tests.cluster.bare.shell import run, write

CONTAINERD_TOML: Final = f"""
version = 2
root = "{STATE}/containerd"
state = "{RUN}/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{STATE}/runtime-spec.json"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{RUN}/runc"
"""

AUDIT_POLICY: Final[dict[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
    "rules": [
        # Questions that are asked with a POST: nothing is stored.
        {"level": "None", "resources": [{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}]},
        {"level": "None", "resources": [{"group": "", "resources": ["serviceaccounts/token"]}]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
    ],
}
"""Who wrote what, and when: tests count it. What was written is not kept, nor is any read."""


def write_configuration() -> None:
    """Write the file of every component that reads one."""
    write(STATE / "containerd.toml", CONTAINERD_TOML)
    write(STATE / "runtime-spec.json", _runtime_spec())
    write(STATE / "cni" / "10-bridge.conflist", _pod_network())
    write(STATE / "kubelet.yaml", _kubelet())
    write(STATE / "proxy.yaml", _proxy())
    write(STATE / "audit-policy.yaml", AUDIT_POLICY)


def _runtime_spec() -> dict[str, Any]:
    """Return containerd's default, but no raw sockets unless a pod asks for them."""
    spec: dict[str, Any] = json.loads(run("ctr", "oci", "spec"))
    capabilities: dict[str, list[str]] = spec["process"]["capabilities"]
    for name, granted in capabilities.items():
        capabilities[name] = [one for one in granted if one != "CAP_NET_RAW"]
    del spec["process"]["rlimits"], spec["linux"]["cgroupsPath"]
    return spec


def _pod_network() -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": str(POD_CIDR)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{STATE}/ipam",
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": NODE, "plugins": [bridge, ports]}


def _kubelet() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "address": NODE_IP,
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(SERVICE_CIDR[10])],
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "podLogsDir": f"{STATE}/pod-logs",
        "resolvConf": "",
        "imageGCHighThresholdPercent": 100,  # there is no registry to fetch a collected image from again
        "maxPods": 200,
        "podPidsLimit": 512,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
    }


def _proxy() -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "healthzBindAddress": "127.0.0.1:10256",
        "nodePortAddresses": [f"{NODE_IP}/32"],
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms"},
        "bindAddress": NODE_IP,
        "clusterCIDR": str(POD_CIDR),
        "hostnameOverride": NODE,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "clientConnection": {"kubeconfig": f"{CONF}/kube-proxy.conf"},
    }
