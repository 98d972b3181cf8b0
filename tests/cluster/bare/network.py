"""The bridge of the pods and the walls around it: nothing that a pod sends leaves this host."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Final

from tests.cluster.bare.layout import BRIDGE, NODE, NODE_IP, POD_CIDR, SERVICE_CIDR, STATE
from tests.cluster.bare.shell import lines_of, run, succeeds, write

NOTHING_LEAVES: Final = (
    "FORWARD", "-i", BRIDGE, "!", "-o", "hc+", "-j", "REJECT", "--reject-with", "icmp-net-unreachable",
)  # fmt: skip
"""What pods send goes to this host, to other pods, or to test networks whose devices are named hc…"""

# kube-proxy's chains accept what they marked before NOTHING_LEAVES is asked, and an NFQUEUE verdict skips the rest of
# its table: hence tables of their own. The host would answer for its bridge's address on any device; and IPv6
# link-local, VLAN tags and other protocols would be ways around the policies, which see IPv4 only.
WALLS: Final = (
    ("iptables", "security", "FORWARD", "-i", BRIDGE, "!", "-o", "hc+", "-j", "DROP"),
    ("iptables", "raw", "PREROUTING", "-d", str(SERVICE_CIDR), "-j", "HOSTCLUSTER-WALL"),
    ("iptables", "raw", "PREROUTING", "-d", str(POD_CIDR), "-j", "HOSTCLUSTER-WALL"),
    ("iptables", "raw", "HOSTCLUSTER-WALL", "-j", "DROP"),
    ("iptables", "raw", "HOSTCLUSTER-WALL", "-i", "hc+", "-j", "RETURN"),
    ("iptables", "raw", "HOSTCLUSTER-WALL", "-i", "lo", "-j", "RETURN"),
    ("ip6tables", "mangle", "FORWARD", "-i", BRIDGE, "-j", "DROP"),
    ("ip6tables", "mangle", "INPUT", "-i", BRIDGE, "-j", "DROP"),
    ("ebtables", "filter", "INPUT", "-i", "veth+", "-j", "HOSTCLUSTER-WALL"),  # nothing but IPv4 and ARP
    ("ebtables", "filter", "FORWARD", "-i", "veth+", "-j", "HOSTCLUSTER-WALL"),
    ("ebtables", "filter", "HOSTCLUSTER-WALL", "-j", "DROP"),
    ("ebtables", "filter", "HOSTCLUSTER-WALL", "-p", "ARP", "-j", "RETURN"),
    ("ebtables", "filter", "HOSTCLUSTER-WALL", "-p", "IPv4", "-j", "RETURN"),
)
FORWARDING: Final = (
    "net.ipv4.ip_forward",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
)
SYSCTLS: Final = (
    *FORWARDING,
    "net.ipv4.conf.all.route_localnet",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
"""Settings of the host that this module, the kubelet or kube-proxy change; `restore_sysctls` puts them back."""
OWN_CHAINS: Final = ("HOSTCLUSTER-",)
CHAINS: Final = (*OWN_CHAINS, "KUBE-")
"""Chains of this cluster; those of kube-proxy and kubelet have the same names in every Kubernetes."""
RESULTS: Final = Path("/var/lib/cni/results")
OURS: Final = f"{NODE}-*-eth0"
"""Files of libcni's cache for pods of this cluster's network; each has a twin for the loopback device."""


def make_bridge() -> None:
    """Make the bridge, the walls and the forwarding; remember the host's settings first."""
    # The first `ip netns add` on a host mounts /run/netns over itself, over any namespaces that CNI put there already,
    # which could not be removed afterwards: so it is done first.
    succeeds("ip", "netns", "add", "hostcluster-first")
    succeeds("ip", "netns", "delete", "hostcluster-first")
    if not succeeds("ip", "link", "show", BRIDGE):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "replace", f"{NODE_IP}/{POD_CIDR.prefixlen}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    write(STATE / "sysctls.json", {key: Path("/proc/sys", *key.split(".")).read_text().strip() for key in SYSCTLS})
    for key in FORWARDING:
        run("sysctl", "-qw", f"{key}=1")
    succeeds("iptables", "-w", "-t", "raw", "-N", "HOSTCLUSTER-WALL")
    succeeds("ebtables", "-N", "HOSTCLUSTER-WALL")
    for tool, table, *rule in WALLS:  # `down` was here before: there are none yet (ebtables cannot check)
        run(tool, *_waits(tool), "-t", table, "-I", *rule)
    if not succeeds("iptables", "-w", "-C", *NOTHING_LEAVES):
        run("iptables", "-w", "-I", *NOTHING_LEAVES)


def remove_bridge() -> None:
    """Remove the bridge, what hangs on it, and the network namespaces of the pods that were given an address here."""
    for link in lines_of("ip", "-o", "link", "show", "master", BRIDGE):
        succeeds("ip", "link", "delete", link.split(":")[1].split("@")[0].strip())
    succeeds("ip", "link", "delete", BRIDGE)
    for name in namespaces(RESULTS):
        succeeds("ip", "netns", "delete", name)
    for result in RESULTS.glob(OURS):
        result.with_name(f"cni-loopback-{result.name.split('-')[1]}-lo").unlink(missing_ok=True)
        result.unlink()


def namespaces(results: Path) -> set[str]:
    """Return the names of the network namespaces that this cluster's network was asked to connect."""
    found: set[str] = set()
    for result in results.glob(OURS):
        try:
            interfaces = json.loads(result.read_text())["result"]["interfaces"]
        except (OSError, ValueError, KeyError):  # cut off by a crash: it names none
            continue
        found |= {Path(one["sandbox"]).name for one in interfaces if one.get("sandbox")}
    return found


def remove_rules(prefixes: tuple[str, ...]) -> None:
    """Take away the chains whose names begin so, the rules that lead there, and this module's own rules."""
    for tool in ("iptables", "ip6tables"):
        for table in ("raw", "mangle", "nat", "filter", "security"):
            _remove_chains(tool, table, prefixes)
    succeeds("iptables", "-w", "-D", *NOTHING_LEAVES)
    for tool, table, *rule in WALLS:
        while succeeds(tool, *_waits(tool), "-t", table, "-D", *rule):
            pass
    succeeds("ebtables", "-X", "HOSTCLUSTER-WALL")


def _remove_chains(tool: str, table: str, prefixes: tuple[str, ...]) -> None:
    rules = [shlex.split(line) for line in lines_of(tool, "-w", "-t", table, "-S")]
    for rule in rules:
        if rule[0] == "-A" and not rule[1].startswith(prefixes) and rule[-1].startswith(prefixes):
            succeeds(tool, "-w", "-t", table, "-D", *rule[1:])
    chains = [rule[1] for rule in rules if rule[0] == "-N" and rule[1].startswith(prefixes)]
    for option in ("-F", "-X"):
        for chain in chains:
            succeeds(tool, "-w", "-t", table, option, chain)


def _waits(tool: str) -> tuple[str, ...]:
    return () if tool == "ebtables" else ("-w",)


def restore_sysctls() -> None:
    """Put the host's settings back as they were before `make_bridge`."""
    noted = STATE / "sysctls.json"
    if noted.exists():
        for key, value in json.loads(noted.read_text()).items():
            succeeds("sysctl", "-qw", f"{key}={value}")
