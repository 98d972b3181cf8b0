"""The public keys that kernel hosts trust, as a ConfigMap of each session namespace."""

from __future__ import annotations

import msgspec

from carrel_api import names
from carrel_operator.builders.identity import Manifest
from carrel_wire.tokens import KeySet


def keys_config_map(namespace: str, keys: KeySet) -> Manifest:
    """Return the ConfigMap; every pod of the namespace mounts it, and hosts read it again when it changes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.KEYS_CONFIG_MAP,
            "namespace": namespace,
            "labels": {names.MANAGED_BY_LABEL: names.MANAGER},
        },
        "data": {names.KEYS_FILE: msgspec.json.encode(keys).decode()},
    }
