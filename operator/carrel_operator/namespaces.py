"""Keeps session namespaces ready for pods: everything denied but the kernel port, and the keys that hosts trust.

A namespace is put right before its first pod, whenever somebody changes what was put there, and from time to time.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

from carrel_operator.builders.keys import keys_config_map
from carrel_operator.builders.network_policy import Peer, namespace_policies
from carrel_operator.cluster import Cluster
from carrel_operator.keys import OwnKey, trusted_keys
from carrel_operator.settings import Settings, labels_of
from carrel_operator.store import Store


def _locks() -> defaultdict[str, asyncio.Lock]:
    return defaultdict(asyncio.Lock)


@dataclass
class Namespaces:
    """Remembers which namespaces were put right, and when."""

    settings: Settings
    cluster: Cluster
    own_key: OwnKey
    store: Store
    _prepared: dict[str, float] = field(default_factory=dict[str, float])
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=_locks)

    async def ensure(self, namespace: str) -> None:
        """Put the namespace right, unless that was done not long ago."""
        async with self._locks[namespace]:
            done = self._prepared.get(namespace)
            if done is None or time.monotonic() - done > self.settings.resync_seconds:
                await self._apply(namespace)

    async def renew(self, namespace: str) -> None:
        """Put the namespace right now."""
        async with self._locks[namespace]:
            await self._apply(namespace)

    async def _apply(self, namespace: str) -> None:
        settings = self.settings
        self._prepared.pop(namespace, None)
        keys = await asyncio.to_thread(trusted_keys, settings, self.own_key)
        peers = [
            Peer(settings.namespace, labels_of(settings.gateway_selector)),
            Peer(settings.namespace, labels_of(settings.operator_selector)),
        ]
        for policy in namespace_policies(namespace, peers):
            self.store.wrote("NetworkPolicy", await self.cluster.apply(policy))
        await self.cluster.apply(keys_config_map(namespace, keys))
        self._prepared[namespace] = time.monotonic()
