"""What a class gives all programs in its pods: a proxy to go through, and authorities to trust. Pure.

The kernel host hands both on to kernels. A session's own environment may override the proxy: it is a help, not a
boundary; what can be reached is decided by network policies.
"""

from __future__ import annotations

from typing import Final

from carrel_api.session_class import SessionClassSpec
from carrel_operator.builders.identity import Manifest

AUTHORITIES: Final = "/etc/carrel/authorities"
AUTHORITIES_FILE: Final = "ca.crt"
"""Key of the class's ConfigMap, as trust-manager and OpenShift name it."""
OWN_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""A pod's own servers are never behind a proxy."""


def class_environment(allowed: SessionClassSpec) -> list[Manifest]:
    """Return variables of the pod: proxies in both spellings, since programs differ in which they read."""
    found: list[Manifest] = []
    if allowed.proxy is not None and (allowed.proxy.http or allowed.proxy.https):
        direct = ",".join((*OWN_HOSTS, *filter(None, [allowed.proxy.no_proxy])))
        proxies = {"HTTP_PROXY": allowed.proxy.http, "HTTPS_PROXY": allowed.proxy.https, "NO_PROXY": direct}
        for name, value in proxies.items():
            found += [{"name": each, "value": value} for each in (name, name.lower()) if value]
    if allowed.ca_bundle is not None:
        found.append({"name": "CARREL_KERNEL_AUTHORITIES", "value": f"{AUTHORITIES}/{AUTHORITIES_FILE}"})
    return found


def authorities_mount(allowed: SessionClassSpec) -> list[Manifest]:
    """Return where the class's authorities are mounted, if it has any."""
    if allowed.ca_bundle is None:
        return []
    return [{"name": "authorities", "mountPath": AUTHORITIES, "readOnly": True}]


def authorities_volume(allowed: SessionClassSpec) -> list[Manifest]:
    """Return the volume with the class's authorities, if it has any."""
    if allowed.ca_bundle is None:
        return []
    items = [{"key": AUTHORITIES_FILE, "path": AUTHORITIES_FILE}]
    return [
        {"name": "authorities", "configMap": {"name": allowed.ca_bundle, "items": items, "defaultMode": 0o444}},
    ]
