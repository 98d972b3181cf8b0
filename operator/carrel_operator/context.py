"""Everything that lives as long as the process: made once, closed once, handed down. No globals."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from carrel_api import names
from carrel_operator.cluster import Cluster
from carrel_operator.hosts import Hosts
from carrel_operator.keys import OwnKey, own_key
from carrel_operator.queue import WorkQueue
from carrel_operator.readiness import Readiness
from carrel_operator.settings import Settings
from carrel_operator.store import Store


@dataclass(frozen=True)
class Key:
    """What a pass is about; the object may or may not exist."""

    kind: str
    """`session`, `pool`, `class` or `namespace`."""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """Return it for logs."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


@dataclass(frozen=True)
class ProcessContext:
    """The operator's parts that hold connections or state."""

    settings: Settings
    cluster: Cluster
    hosts: Hosts
    own_key: OwnKey
    store: Store = field(default_factory=Store)
    readiness: Readiness = field(default_factory=Readiness)
    queue: WorkQueue[Key] = field(init=False)

    def __post_init__(self) -> None:
        """Make the queue, whose turns depend on what is stored."""
        object.__setattr__(self, "queue", WorkQueue(group_of=self._group_of, workers=self.settings.workers))

    def _group_of(self, key: Key) -> Hashable:
        """Return whose turn a key takes: that of its tenant, in a namespace that tenants share."""
        if key.kind != "session":
            return key.kind, key.namespace
        document = self.store.find(names.SESSION_KIND, key.namespace, key.name)
        return key.namespace, document.get("spec", {}).get("tenant", "") if document is not None else ""

    @classmethod
    async def from_settings(cls, settings: Settings) -> ProcessContext:
        """Return the context.

        Raises
        ------
        ConfigurationError
            Keys or credentials are missing or wrong.
        """
        own = own_key(settings)
        cluster = await Cluster.connect()
        return cls(
            settings=settings,
            cluster=cluster,
            hosts=Hosts(own.signer, timeout_seconds=settings.host_timeout_seconds),
            own_key=own,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self.hosts.aclose()
        await self.cluster.aclose()
