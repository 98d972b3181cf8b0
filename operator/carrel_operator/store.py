"""What this process knows of the cluster: the last that was heard of each object, by watch, by list, or by own write.

It answers what a pass wants to know without a request. Newer versions win, whichever way they came; what was deleted
stays so. It writes nothing and decides nothing. Versions are compared as numbers, which Kubernetes promises since 1.35
for all built-in and custom resources, and etcd has given since the first.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydantic import ValidationError

from carrel_api import names
from carrel_api.session_class import SessionClass
from carrel_operator.builders.identity import hash_of
from carrel_operator.isolation import is_foreign
from carrel_operator.observed import Document, PodView

logger = structlog.get_logger(__name__)

KINDS: Final = (names.CLASS_KIND, names.POOL_KIND, names.SESSION_KIND, "Pod", "NetworkPolicy")
"""What is watched, in an order in which each finds what it refers to."""
_REMEMBERED: Final = 20_000
"""Deleted objects whose late news is not believed."""
_METADATA: Final = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "labels",
    "annotations", "ownerReferences",
)  # fmt: skip
Name = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object: what is kept of it."""

    uid: str
    version: int
    value: Any
    """A `PodView`, a `SessionClass` (none where it cannot be understood), or the document without what nobody reads."""


@dataclass
class Store:
    """Objects by kind and name, with the few indexes that passes need."""

    _objects: dict[str, dict[Name, Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    _gone: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])
    _pods_of: defaultdict[str, set[Name]] = field(default_factory=lambda: defaultdict(set))
    """Pods by the UID of what controls them."""
    _pods_from: defaultdict[str, set[Name]] = field(default_factory=lambda: defaultdict(set))
    """Claimed pods by the hash of the pool that they came from."""
    _pools: dict[str, Name] = field(default_factory=dict[str, Name])
    """Pools by the hash of their UID."""
    _foreign_in: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names of network policies that are not the operator's to put right, by namespace."""
    heard_at: dict[str, float] = field(default_factory=dict[str, float])
    """When something of a kind was last heard by watch (monotonic seconds)."""
    _awaited: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict[str, tuple[int, float]])
    """Own writes that the watch has not brought back yet: version and when."""

    # ------------------------------------------------------------------ what comes in

    def heard(self, kind: str, document: Document, *, deleted: bool = False) -> None:
        """Take note of what a watch said."""
        self.heard_at[kind] = time.monotonic()
        awaited = self._awaited.get(document["metadata"]["uid"])
        if awaited is not None and (deleted or _version(document) >= awaited[0]):
            del self._awaited[document["metadata"]["uid"]]
        if deleted:
            self.gone(kind, _name(document), document["metadata"]["uid"])
        else:
            self._put(kind, document)

    def wrote(self, kind: str, document: Document) -> None:
        """Take note of what the API server answered to a write of this process."""
        uid = document["metadata"]["uid"]
        if self._put(kind, document):
            self._awaited[uid] = (_version(document), time.monotonic())
            self._awaited.move_to_end(uid)

    def read(self, kind: str, document: Document) -> None:
        """Take note of what the API server answered to a question."""
        self._put(kind, document)

    def gone(self, kind: str, name: Name, uid: str) -> None:
        """Take note that an object is no longer there."""
        self._gone[uid] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
        self._awaited.pop(uid, None)
        entry = self._objects[kind].get(name)
        if entry is not None and entry.uid == uid:
            del self._objects[kind][name]
            self._unindex(kind, name, entry)

    async def replace(
        self, kind: str, namespace: str, documents: AsyncIterable[Document], *, since: int
    ) -> AsyncGenerator[tuple[Name, Any]]:
        """Take a whole list: what it does not name is gone, unless it was heard of after the list was asked for.

        Each document is let go of before the next one: ten thousand pods would be hundreds of MiB.

        Parameters
        ----------
        kind, namespace
            What was listed; an empty namespace for what has none.
        documents
            All objects of it; when asking for more of them fails, none is gone.
        since
            The highest version that was known when the list was asked for.

        Yields
        ------
        tuple
            What was not known as it is: names, with what is kept now, or was kept last.
        """
        listed: set[str] = set()
        async for document in documents:
            listed.add(document["metadata"]["uid"])
            if self._put(kind, document):
                yield _name(document), self._objects[kind][_name(document)].value
        for name, entry in list(self._objects[kind].items()):
            if name[0] == namespace and entry.uid not in listed and entry.version <= since:
                self.gone(kind, name, entry.uid)
                yield name, entry.value

    def newest(self, kind: str) -> int:
        """Return the highest version that is known of a kind."""
        return max((entry.version for entry in self._objects[kind].values()), default=0)

    def oldest_unheard(self) -> float:
        """Return for how many seconds the watch has owed the oldest own write."""
        first = next(iter(self._awaited.values()), None)
        return 0.0 if first is None else time.monotonic() - first[1]

    # ------------------------------------------------------------------ what is asked

    def find(self, kind: str, namespace: str, name: str) -> Any:
        """Return what is kept of the object, or none."""
        entry = self._objects[kind].get((namespace, name))
        return None if entry is None else entry.value

    def names(self, kind: str) -> list[Name]:
        """Return namespace and name of all objects of a kind."""
        return list(self._objects[kind])

    def all(self, kind: str) -> Iterator[Any]:
        """Return what is kept of all objects of a kind."""
        return (entry.value for entry in list(self._objects[kind].values()))

    def pods_of(self, uid: str) -> list[PodView]:
        """Return the pods that an object controls."""
        return [self._objects["Pod"][name].value for name in sorted(self._pods_of.get(uid, ()))]

    def pods_from(self, pool_uid: str) -> int:
        """Return how many pods of sessions came from the pool."""
        return len(self._pods_from.get(hash_of(pool_uid), ()))

    def pool_of(self, pod: PodView) -> Name | None:
        """Return the pool that a pod is of, or came from."""
        return self._pools.get(pod.pool or pod.claimed_from or "")

    def pools_in(self, namespace: str) -> list[Document]:
        """Return the pools of a namespace."""
        return [entry.value for name, entry in self._objects[names.POOL_KIND].items() if name[0] == namespace]

    def foreign_in(self, namespace: str) -> list[Document]:
        """Return the network policies of a namespace that are not the operator's to put right."""
        found = self._objects["NetworkPolicy"]
        return [found[namespace, name].value for name in sorted(self._foreign_in.get(namespace, ()))]

    def __len__(self) -> int:
        """Return how many objects are known."""
        return sum(len(objects) for objects in self._objects.values())

    def is_there(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        """Return whether this very object is known."""
        entry = self._objects[kind].get((namespace, name))
        return entry is not None and entry.uid == uid

    # ------------------------------------------------------------------ inside

    def _put(self, kind: str, document: Document) -> bool:
        name, uid, version = _name(document), document["metadata"]["uid"], _version(document)
        before = self._objects[kind].get(name)
        if uid in self._gone or (before is not None and before.uid == uid and before.version >= version):
            return False
        if before is not None:
            if before.uid != uid and before.version > version:
                return False  # another object has the name by now
            self._unindex(kind, name, before)
        entry = Entry(uid, version, _kept(kind, document))
        self._objects[kind][name] = entry
        self._index(kind, name, entry)
        return True

    def _index(self, kind: str, name: Name, entry: Entry) -> None:
        if kind == "Pod":
            pod: PodView = entry.value
            self._pods_of[pod.owner_uid].add(name)
            if pod.claimed_from:
                self._pods_from[pod.claimed_from].add(name)
        elif kind == "NetworkPolicy" and is_foreign(entry.value):
            self._foreign_in[name[0]].add(name[1])
        elif kind == names.POOL_KIND:
            self._pools[hash_of(entry.uid)] = name

    def _unindex(self, kind: str, name: Name, entry: Entry) -> None:
        if kind == "Pod":
            pod: PodView = entry.value
            _discard(self._pods_of, pod.owner_uid, name)
            if pod.claimed_from:
                _discard(self._pods_from, pod.claimed_from, name)
        elif kind == "NetworkPolicy":
            _discard(self._foreign_in, name[0], name[1])
        elif kind == names.POOL_KIND:
            self._pools.pop(hash_of(entry.uid), None)


def _discard(index: defaultdict[str, set[Any]], key: str, member: object) -> None:
    index[key].discard(member)
    if not index[key]:
        del index[key]


def _name(document: Document) -> Name:
    return document["metadata"].get("namespace", ""), document["metadata"]["name"]


def _version(document: Document) -> int:
    return int(document["metadata"]["resourceVersion"])


def _kept(kind: str, document: Document) -> Any:
    if kind == "Pod":
        return PodView.of(document)
    if kind == names.CLASS_KIND:
        return parsed_class(document)
    metadata = {key: document["metadata"][key] for key in _METADATA if key in document["metadata"]}
    return {**{key: document[key] for key in ("spec", "status") if key in document}, "metadata": metadata}


def parsed_class(document: Document) -> SessionClass | None:
    """Return the class; none where this version cannot understand it."""
    try:
        return SessionClass.parse(document)
    except ValidationError:
        logger.warning("a SessionClass cannot be understood and counts as missing", name=document["metadata"]["name"])
        return None
