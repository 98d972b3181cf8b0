"""Where the bare-host cluster keeps things and which names and addresses it uses. Constants only."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parent / "hostcluster"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hostcluster"
STATE: Final = Path("/var/lib/hostcluster")
RUN: Final = Path("/run/hostcluster")
LOCK: Final = Path("/run/hostcluster.lock")
LOGS: Final = STATE / "logs"
PIDS: Final = STATE / "pids"
PKI: Final = STATE / "pki"
CONF: Final = STATE / "conf"
LOADED: Final = STATE / "loaded"
"""Which image archives were imported, so that an unchanged one is not imported again."""
AUDIT: Final = LOGS / "audit.log"
"""What the API server notes of every write; full ones stand beside it, with their time in the name."""
CONTAINERD: Final = RUN / "containerd.sock"
ADMIN: Final = CONF / "admin.conf"

KUBERNETES: Final = "v1.35.4"
NODE: Final = "hostcluster"
BRIDGE: Final = "hc0"
POD_CIDR: Final = ipaddress.ip_network("10.244.0.0/24")
SERVICE_CIDR: Final = ipaddress.ip_network("10.96.0.0/16")
NODE_IP: Final = str(POD_CIDR[1])
"""The bridge's own address: pods reach it, nothing outside the host does."""
API: Final = f"https://{NODE_IP}:6443"
ETCD: Final = "http://127.0.0.1:12379"
ETCD_PEER: Final = "http://127.0.0.1:12380"
PAUSE_IMAGE: Final = "localhost/pause:1"
COREDNS_IMAGE: Final = "localhost/coredns:1"

COMPONENTS: Final = (
    "volumes",
    "kubelet",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-proxy",
    "network-policies",
    "kube-apiserver",
    "etcd",
    "containerd",
)
"""Processes of the cluster, in the order in which they are stopped."""
