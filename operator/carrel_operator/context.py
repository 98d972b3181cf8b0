"""Everything that lives as long as the process: made once, closed once, handed down. No globals."""

from __future__ import annotations

from dataclasses import dataclass, field

from carrel_operator.cluster import Cluster
from carrel_operator.hosts import Hosts
from carrel_operator.keys import OwnKey, own_key
from carrel_operator.queue import WorkQueue
from carrel_operator.settings import Settings


@dataclass(frozen=True)
class Key:
    """What a pass is about; the object may or may not exist."""

    kind: str
    """`session`, `class` or `namespace`."""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        """Return it for logs."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


def _queue() -> WorkQueue[Key]:
    return WorkQueue(group_of=lambda key: key.namespace)


@dataclass(frozen=True)
class ProcessContext:
    """The operator's parts that hold connections or state."""

    settings: Settings
    cluster: Cluster
    hosts: Hosts
    own_key: OwnKey
    queue: WorkQueue[Key] = field(default_factory=_queue)

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
