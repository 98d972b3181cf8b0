"""An API server in memory, as far as the operator can tell: what is stored, in which order, and who was too late.

`ApiServer` holds the objects, and gives each change to those who watch; `Connection` is what `Cluster` is to one
process of the operator, and can end with that process at any write. `tests/cluster/test_fake_api.py` makes the same
calls to this and to a real API server.

It models versions that count all writes, preconditions on UID and version, JSON patches with tests, server-side apply
of one manager, generated names, the grace period of pods, owner references (`collect_garbage` is the collector's turn),
generations, and the errors that `Cluster` makes of the status codes.

It does not model schemas and their defaults, admission, quotas, rights, other field managers (an applied field takes
the place of what is there), namespaces as objects, finalizers, lists in parts, and the age of watches.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from carrel_api import names
from carrel_operator.errors import ApiConflict, ApiNotFound, ApiRefused

Document = dict[str, Any]
Listener = Callable[[str, str, Document], None]
"""Told of each change: type of the event, kind, object."""
T = TypeVar("T")
CLUSTER_SCOPED = {names.CLASS_KIND}
CUSTOM = {names.CLASS_KIND, names.POOL_KIND, names.SESSION_KIND}
"""Kinds whose status is a subresource that nobody writes together with the spec."""


def stamp(moment: datetime) -> str:
    """Return the time as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class ApiServer:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Document] = {}
        self._number = 0
        self.listeners: list[Listener] = []

    @property
    def version(self) -> int:
        """The latest version that was given."""
        return self._number

    # ------------------------------------------------------------------ looking

    def find(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """Return the object, or none."""
        return copy.deepcopy(self._objects.get((kind, namespace or "", name)))

    def get(self, kind: str, name: str, namespace: str = "carrel-sessions") -> Document:
        """Return the object, which is there."""
        found = self.find(kind, name, "" if kind in CLUSTER_SCOPED else namespace)
        if found is None:
            raise ApiNotFound(f"{kind} {name} is not there")
        return found

    def all(self, kind: str, namespace: str | None = None, labels: str | None = None) -> list[Document]:
        """Return all objects of the kind, in the order of their names."""
        wanted = dict(pair.split("=", 1) for pair in labels.split(",")) if labels else {}
        return [
            copy.deepcopy(document)
            for (found, where, _), document in sorted(self._objects.items())
            if found == kind
            and namespace in (None, where)
            and wanted.items() <= (document["metadata"].get("labels") or {}).items()
        ]

    # ------------------------------------------------------------------ writing

    def create(self, manifest: Document) -> Document:
        """Make the object; its UID, version, time and generated name are the server's."""
        document = copy.deepcopy(manifest)
        metadata = document["metadata"]
        if "name" in metadata and self._key(document) in self._objects:
            raise ApiConflict(f"{document['kind']} {metadata['name']} already exists")
        number = self._count()
        metadata.setdefault("name", f"{metadata.get('generateName', '')}{number:05}")
        metadata |= {"uid": f"uid-{number:05}", "generation": 1, "creationTimestamp": stamp(datetime.now(UTC))}
        if document["kind"] in CUSTOM:
            document.pop("status", None)
        if document["kind"] == "Pod":
            document["status"] = {"phase": "Pending"}
        return self._store("ADDED", document, number)

    def put(self, document: Document) -> Document:
        """Store the object as it is given, as a test finds it; what it lacks of the server's own is added."""
        number = self._count()
        document = copy.deepcopy(document)
        before = self._objects.get(self._key(document))
        kept = {} if before is None else {"uid": before["metadata"]["uid"]}
        document["metadata"] = {"uid": f"uid-{number:05}", "generation": 1, **document["metadata"], **kept}
        return self._store("ADDED" if before is None else "MODIFIED", document, number)

    def change(self, kind: str, name: str, act: Callable[[Document], None], namespace: str = "carrel-sessions") -> None:
        """Change the object as its owner or a kubelet would."""
        before = self.get(kind, name, namespace)
        document = copy.deepcopy(before)
        act(document)
        self._renew(before, document)

    def apply(self, manifest: Document, *, subresource: str | None = None) -> Document:
        """Apply the manifest: its status alone, or all but the status."""
        before = self._objects.get(self._key(manifest))
        if before is None:
            if subresource:
                raise ApiNotFound(f"{manifest['kind']} {manifest['metadata']['name']} not found")
            return self.create(manifest)
        self._same(before, manifest["metadata"])
        document = copy.deepcopy(before)
        if subresource:
            document[subresource] = copy.deepcopy(manifest[subresource])
        else:
            document |= {
                key: copy.deepcopy(value) for key, value in manifest.items() if key not in {"metadata", "status"}
            }
            for part in ("labels", "annotations"):
                given = manifest["metadata"].get(part, {})
                if given:
                    document["metadata"][part] = {**document["metadata"].get(part, {}), **given}
            if "ownerReferences" in manifest["metadata"]:
                document["metadata"]["ownerReferences"] = copy.deepcopy(manifest["metadata"]["ownerReferences"])
        return self._renew(before, document)

    def patch(self, kind: str, name: str, namespace: str, operations: list[Document]) -> Document:
        """Change the object by a JSON patch (RFC 6902) of tests, additions, replacements and removals."""
        before = self._objects.get((kind, namespace, name))
        if before is None:
            raise ApiNotFound(f"{kind} {name} not found")
        document = copy.deepcopy(before)
        for operation in operations:
            _operate(document, operation)
        return self._renew(before, document)

    def replace(self, document: Document) -> Document:
        """Replace the object, if its version is the one that is stored."""
        before = self._objects.get(self._key(document))
        if before is None:
            raise ApiNotFound(f"{document['kind']} {document['metadata']['name']} not found")
        self._same(before, document["metadata"])
        return self._renew(before, copy.deepcopy(document))

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete the object; a pod that has a node is there until its kubelet has ended it (`finish`)."""
        before = self._objects.get((kind, "" if kind in CLUSTER_SCOPED else namespace, name))
        if before is None:
            raise ApiNotFound(f"{kind} {name} not found")
        self._same(before, {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value})
        if kind != "Pod" or grace_seconds == 0 or "nodeName" not in before.get("spec", {}):
            self._remove(before)
            return
        if "deletionTimestamp" in before["metadata"]:
            return
        grace = before["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        document = copy.deepcopy(before)
        at = datetime.now(UTC) + timedelta(seconds=grace)
        document["metadata"] |= {"deletionTimestamp": stamp(at), "deletionGracePeriodSeconds": grace}
        self._renew(before, document)

    def finish(self, kind: str, name: str, namespace: str = "carrel-sessions") -> None:
        """Take the object away, as a kubelet does when a deleted pod has ended."""
        self._remove(self._objects[kind, "" if kind in CLUSTER_SCOPED else namespace, name])

    def collect_garbage(self) -> None:
        """Delete what belongs to an owner that is gone, until nothing is left of it."""
        there = {document["metadata"]["uid"] for document in self._objects.values()}
        for (kind, namespace, name), document in list(self._objects.items()):
            owners = document["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in there for owner in owners):
                self.delete(kind, name, namespace)

    # ------------------------------------------------------------------ inside

    def _count(self) -> int:
        self._number += 1
        return self._number

    @staticmethod
    def _key(document: Document) -> tuple[str, str, str]:
        return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]

    @staticmethod
    def _same(before: Document, wanted: Document) -> None:
        """Refuse what was meant for another object, or for an earlier version of it."""
        for key in ("uid", "resourceVersion"):
            if wanted.get(key) not in (None, before["metadata"][key]):
                raise ApiConflict(f"{key} is {before['metadata'][key]}, not {wanted[key]}")

    def _renew(self, before: Document, document: Document) -> Document:
        """Store the changed object; one that is the same has no new version, and nobody hears of it."""
        if document == before:
            return copy.deepcopy(before)
        if document.get("spec") != before.get("spec"):
            document["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
        return self._store("MODIFIED", document, self._count())

    def _store(self, event: str, document: Document, number: int) -> Document:
        document["metadata"]["resourceVersion"] = str(number)
        self._objects[self._key(document)] = document
        self._tell(event, document)
        return copy.deepcopy(document)

    def _remove(self, document: Document) -> None:
        del self._objects[self._key(document)]
        last = copy.deepcopy(document)
        last["metadata"]["resourceVersion"] = str(self._count())
        self._tell("DELETED", last)

    def _tell(self, event: str, document: Document) -> None:
        for listener in list(self.listeners):
            listener(event, document["kind"], copy.deepcopy(document))


class Connection:
    """`Cluster` of one process of the operator, which may be killed at one of its writes.

    A killed process is told nothing any more, and does nothing: its calls do not return.
    """

    def __init__(self, server: ApiServer, *, latency: float = 0.0) -> None:
        self.server = server
        self._latency = latency
        self.written: list[str] = []
        """Kinds of what was written, with `delete ` or `patch ` before, or a subresource after it."""
        self.refuse: dict[str, Exception] = {}
        """What the next write of this kind raises."""
        self.died = asyncio.Event()
        self.dies_at: int | None = None
        """Number of the write at which the process is killed."""
        self.when: Literal["before", "after"] = "before"
        """Whether it is killed before or after that takes effect."""
        self.judge: Callable[[str, str, str, str | None], None] = lambda _kind, _name, _namespace, _uid: None
        """Told of each object (and the UID that is asked for) before it is deleted."""

    async def find(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        await self._alive()
        return self.server.find(kind, name, namespace)

    async def items(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None
    ) -> AsyncIterator[Document]:
        await self._alive()
        for document in self.server.all(kind, namespace, labels):
            yield document

    async def create(self, manifest: Document) -> Document:
        return await self._write(manifest["kind"], lambda: self.server.create(manifest))

    async def apply(self, manifest: Document, *, subresource: str | None = None) -> Document:
        what = f"{manifest['kind']}/{subresource}" if subresource else manifest["kind"]
        return await self._write(what, lambda: self.server.apply(manifest, subresource=subresource))

    async def patch(self, kind: str, name: str, namespace: str, operations: list[Document]) -> Document:
        return await self._write(f"patch {kind}", lambda: self.server.patch(kind, name, namespace, operations))

    async def replace(self, document: Document) -> Document:
        return await self._write(f"replace {document['kind']}", lambda: self.server.replace(document))

    async def delete(self, kind: str, name: str, namespace: str, **options: Any) -> None:
        def act() -> None:
            self.judge(kind, name, namespace, options.get("uid"))
            self.server.delete(kind, name, namespace, **options)

        try:
            await self._write(f"delete {kind}", act)
        except (ApiNotFound, ApiConflict):
            return

    async def _alive(self) -> None:
        await asyncio.sleep(self._latency)
        if self.died.is_set():
            await asyncio.Event().wait()

    async def _write(self, what: str, act: Callable[[], T]) -> T:
        await self._alive()
        self.written.append(what)
        if what in self.refuse:
            raise self.refuse.pop(what)
        dies = len(self.written) == self.dies_at
        if dies and self.when == "before":
            await self._die()
        try:
            return act()
        finally:
            if dies:
                await self._die()
            await self._alive()

    async def _die(self) -> None:
        self.died.set()
        await asyncio.Event().wait()


def _operate(document: Document, operation: Document) -> None:
    """Carry one operation of a JSON patch out; only members of objects and whole lists are named by its path."""
    *path, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    where: Any = document
    for part in path:
        where = where.get(part) if isinstance(where, dict) else None
    there = isinstance(where, dict) and last in where
    kind = operation["op"]
    if not isinstance(where, dict) or (kind != "add" and not there):
        raise ApiRefused(f"{kind} operation does not apply: {operation['path']} is missing")
    if kind == "test" and where[last] != operation["value"]:
        raise ApiRefused(f"testing value {operation['path']} failed")
    if kind in {"add", "replace"}:
        where[last] = copy.deepcopy(operation["value"])
    if kind == "remove":
        del where[last]
