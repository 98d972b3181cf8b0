"""A cluster in memory around one process of the operator: API server, kubelets, kernel hosts, gateway, collector,
watch.

The operator's own parts are the real ones, from the queue to the calls of `Cluster`; what is around them is
`api_server`, `kubelets` and this. The watch brings events late, again, or not at all, as a test says, and the process
is killed at any write; another one begins then, which knows nothing. Time is that of `timeless`.

What must hold at every moment is judged when it happens (`wrong` says what did not), what must hold in the end by
`settled` and `picture`.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import Counter, defaultdict, deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from tests.support.api_server import ApiServer, Connection, Document
from tests.support.kubelets import LATENCY, Kubelets
from tests.support.timeless import end_others

from carrel_api import names
from carrel_operator.builders.identity import hash_of
from carrel_operator.cluster import Cluster
from carrel_operator.context import Key, ProcessContext
from carrel_operator.handlers import watching
from carrel_operator.hosts import Hosts
from carrel_operator.keys import OwnKey, own_key
from carrel_operator.settings import Settings
from carrel_operator.sighting import Lookout
from carrel_operator.store import KINDS
from carrel_operator.sweeping import read_all
from carrel_operator.worker import Worker
from carrel_wire.tokens import generate_private_key, public_key_of

NAMESPACE = "carrel-sessions"
SAVED_AFTER, COLLECTED_AFTER = 0.3, 0.5
"""Seconds until a gateway has saved what it was asked to, and until the garbage collector is there."""
MOMENT = 1e-6
"""Seconds that are none: timers come a little early."""
FOREVER = 30 * 60.0
"""Seconds after which all has come to rest: six times the longest wait between two tries."""


def image(digit: str) -> list[Document]:
    """Return the images of a class."""
    return [{"name": "python", "reference": f"example.org/kernel@sha256:{digit * 64}"}]


@functools.cache
def process_parts() -> tuple[Settings, OwnKey]:
    """Return the settings and the key of every process."""
    folder = Path(tempfile.mkdtemp(prefix="carrel-world-"))
    (folder / "key").write_text(generate_private_key())
    (folder / "pub").write_text(public_key_of(generate_private_key()))
    settings = Settings(
        operator_private_key_file=folder / "key", gateway_public_key_file=folder / "pub", pod_ip="10.0.0.1", workers=4
    )
    return settings, own_key(settings)


class Process:
    """One process of the operator, from its full read to its end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.connection = Connection(world.server, latency=LATENCY)
        self.connection.judge = world.judge_deletion
        settings, own = process_parts()
        hosts = cast("Hosts", world.kubelets)
        self.context = ProcessContext(settings, cast("Cluster", self.connection), hosts, own)
        self.worker = Worker(self.context, cast("Lookout", world.kubelets))
        self.inbox: dict[tuple[str, str], deque[tuple[str, Document]]] = defaultdict(deque)
        """What the watch has not brought yet, by kind and UID: of one object in order."""
        world.server.listeners.append(self._heard)

    async def work(self) -> None:
        """Do as `__main__` does when it has become the leader."""
        await read_all(self.context, NAMESPACE)
        self.context.queue.add(Key("namespace", NAMESPACE))
        for kind, named in (("pool", names.POOL_KIND), ("session", names.SESSION_KIND)):
            for namespace, name in self.context.store.names(named):
                self.context.queue.add(Key(kind, namespace, name))
        await self.context.queue.run(self.worker.handle)

    def close(self) -> None:
        """Hear nothing more."""
        self.world.server.listeners.remove(self._heard)

    # the watch

    def _heard(self, event: str, kind: str, document: Document) -> None:
        if kind not in KINDS:
            return
        self.inbox[kind, document["metadata"]["uid"]].append((event, document))
        if not self.world.watch_is_late:
            self.deliver_all()

    def deliver_all(self) -> None:
        """Bring everything."""
        for key in list(self.inbox):
            self.deliver(key, len(self.inbox[key]))

    def deliver(self, key: tuple[str, str], number: int, *, again: bool = False) -> None:
        """Bring the next events of one object, the last of them once more."""
        events = self.inbox[key]
        for _ in range(min(number, len(events))):
            event, document = events.popleft()
            for _ in range(1 + again):
                watching.take(self.context, key[0], cast("Any", {"type": event, "object": document}))
        if not events:
            del self.inbox[key]

    def listen_anew(self) -> None:
        """Lose what was not brought, and list as kopf does after that: nobody says what is gone."""
        self.inbox.clear()
        for kind in KINDS:
            for document in self.world.server.all(kind):
                watching.take(self.context, kind, cast("Any", {"type": None, "object": document}))


class World:
    """Everything; to be made inside its event loop."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.kubelets = Kubelets(self.server)
        self.watch_is_late = False
        self.wrong: list[str] = []
        self.most_pods: dict[str, int] = {}
        """How many pods a pool may have, by its UID; what it could have before counts until all is at rest."""
        self.server.listeners += [self._collect, self._save, self._count]
        self.process = Process(self)
        self.killed = 0
        self._writes_before = 0

    # ------------------------------------------------------------------ time

    async def go_on(self, seconds: float) -> None:
        """Let time pass; a process that is killed meanwhile is followed by another one."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        work = self._working()
        while end - loop.time() > MOMENT:
            died = asyncio.ensure_future(self.process.connection.died.wait())
            await asyncio.wait({died, work}, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            if work.done():
                work.result()
                raise AssertionError("the work ended by itself")
            if self.process.connection.died.is_set():
                await self.restart()
                work = self._working()

    def _working(self) -> asyncio.Task[None]:
        running = getattr(self.process, "task", None)
        if running is None:
            running = self.process.task = asyncio.ensure_future(self.process.work())  # type: ignore[attr-defined]
        return running

    async def restart(self) -> None:
        """Kill the process, and begin another one."""
        await end_others()
        self._writes_before += len(self.process.connection.written)
        self.process.close()
        self.process = Process(self)
        self.killed += 1

    @property
    def now(self) -> datetime:
        """The present time."""
        return datetime.now(UTC)

    def kill_at(self, number: int, when: Literal["before", "after"]) -> None:
        """Have the process killed at this write from now on, counted from 1."""
        connection = self.process.connection
        connection.dies_at, connection.when = len(connection.written) + number, when

    @property
    def writes(self) -> int:
        """How many writes all processes have tried."""
        return self._writes_before + len(self.process.connection.written)

    async def settle(self, seconds: float = FOREVER) -> None:
        """Let everything come to rest, without faults."""
        self.watch_is_late = False
        self.process.connection.dies_at = None
        self.process.deliver_all()
        await self.go_on(seconds)
        for pool in self.server.all(names.POOL_KIND):
            self.most_pods[pool["metadata"]["uid"]] = pool["spec"]["replicas"] + pool["spec"]["maxSurge"]

    # ------------------------------------------------------------------ people

    def make_class(self, digit: str = "a", **spec: Any) -> None:
        """Make class `standard`, or give it another image."""
        self.server.put({
            "apiVersion": names.API_VERSION, "kind": names.CLASS_KIND, "metadata": {"name": "standard"},
            "spec": {"images": image(digit), **spec},
        })  # fmt: skip

    def make_pool(self, replicas: int, max_surge: int = 1) -> None:
        """Make pool `warm`, or give it another size."""
        if self.server.find(names.POOL_KIND, "warm", NAMESPACE) is None:
            spec = {"className": "standard", "replicas": replicas, "maxSurge": max_surge}
            self._create(names.POOL_KIND, "warm", spec)
        else:
            self.server.change(names.POOL_KIND, "warm", lambda document: document["spec"].update(replicas=replicas))

    def make_session(self, name: str, **spec: Any) -> None:
        """Make a session of class `standard`."""
        self._create(names.SESSION_KIND, name, {"className": "standard", **spec})

    def change_session(self, name: str, **spec: Any) -> None:
        """Change the spec of a session."""
        self.server.change(names.SESSION_KIND, name, lambda document: document["spec"].update(spec))

    def delete_session(self, name: str) -> None:
        """Delete a session as `kubectl delete` does."""
        self.server.delete(names.SESSION_KIND, name, NAMESPACE)

    def use(self, name: str) -> bool:
        """Run something in a session that is Ready, so that there is state to be lost; return whether it could be."""
        session = self.server.get(names.SESSION_KIND, name)
        pod = self.pod_at(session.get("status", {}).get("endpoint"))
        host = None if pod is None else self.kubelets.host_in(pod)
        if host is None or host.session_uid != session["metadata"]["uid"] or host.sealed:
            return False
        host.unsaved = True
        return True

    def _create(self, kind: str, name: str, spec: Document) -> None:
        manifest = {
            "apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }  # fmt: skip
        self.server.create(manifest)

    # ------------------------------------------------------------------ machinery of the cluster

    def _collect(self, event: str, kind: str, _: Document) -> None:
        if event == "DELETED" and kind in {names.SESSION_KIND, names.POOL_KIND}:
            asyncio.get_running_loop().call_later(COLLECTED_AFTER, self.server.collect_garbage)

    def _save(self, event: str, kind: str, document: Document) -> None:
        """Be the gateway that is asked to save a session's state."""
        if kind == names.SESSION_KIND and event == "MODIFIED" and said(document, "SnapshotRequested")[0] == "True":
            asyncio.get_running_loop().call_later(SAVED_AFTER, self._save_now, document["metadata"]["name"])

    def _save_now(self, name: str) -> None:
        session = self.server.find(names.SESSION_KIND, name, NAMESPACE)
        if session is None or said(session, "SnapshotRequested")[0] != "True":
            return
        pod = self.pod_at(session["status"].get("endpoint"))
        host = None if pod is None else self.kubelets.host_in(pod)
        if pod is None or host is None or host.session_uid != session["metadata"]["uid"]:
            return  # asked again when it is Ready again
        host.unsaved, host.sealed = False, True
        saved = {"podUID": pod["metadata"]["uid"], "ref": "snapshot-1"}
        idle = {"operatingMode": "Suspended"} if said(session, "SnapshotRequested")[1] == "Idle" else {}
        self.change_session(name, snapshot=saved, **idle)

    # ------------------------------------------------------------------ judgement

    def pod_at(self, endpoint: str | None) -> Document | None:
        """Return the pod that a session's status names."""
        found = [
            pod for pod in self.server.all("Pod") if f"{pod['status'].get('podIP')}:{names.KERNEL_PORT}" == endpoint
        ]
        return found[0] if found else None

    def pods_of(self, name: str) -> list[Document]:
        """Return the pods of a session."""
        uid = self.server.get(names.SESSION_KIND, name)["metadata"]["uid"]
        return [pod for pod in self.server.all("Pod") if owner_of(pod) == uid]

    def judge_deletion(self, kind: str, name: str, namespace: str, uid: str | None) -> None:
        """Note that the operator deletes a pod with state that nobody has saved, of a session that goes on."""
        pod = self.server.find(kind, name, namespace) if kind == "Pod" else None
        host = None if pod is None else self.kubelets.host_in(pod)
        if pod is None or host is None or not host.unsaved or "deletionTimestamp" in pod["metadata"]:
            return
        sessions = {document["metadata"]["uid"]: document for document in self.server.all(names.SESSION_KIND)}
        owner = sessions.get(pod["metadata"]["ownerReferences"][0]["uid"])
        if uid == pod["metadata"]["uid"] and owner is not None and said(owner, "Finished")[0] != "True":
            self.wrong.append(f"pod {name} of {owner['metadata']['name']} is deleted with unsaved state")

    def _count(self, event: str, kind: str, document: Document) -> None:
        """Note that a pool has more pods than it may have."""
        if kind == names.POOL_KIND and event != "DELETED":
            most = document["spec"]["replicas"] + document["spec"]["maxSurge"]
            self.most_pods[document["metadata"]["uid"]] = max(most, self.most_pods.get(document["metadata"]["uid"], 0))
        if kind == "Pod" and event == "ADDED" and names.POOL_LABEL in document["metadata"]["labels"]:
            uid = document["metadata"]["ownerReferences"][0]["uid"]
            there = [pod for pod in self.server.all("Pod") if owner_of(pod) == uid and is_fresh(pod)]
            if len(there) > self.most_pods[uid]:
                self.wrong.append(f"a pool has {len(there)} pods, and may have {self.most_pods[uid]}")

    def check(self) -> None:
        """Fail where something is wrong, or was."""
        bound = Counter(
            host.session_uid
            for pod in self.server.all("Pod")
            if is_live(pod) and (host := self.kubelets.host_in(pod)) is not None and host.session_uid is not None
        )
        self.wrong += [f"session {uid} has {number} hosts" for uid, number in bound.items() if number > 1]
        self.wrong += [f"pod {uid} was of {uids}" for uid, uids in self.kubelets.bound.items() if len(uids) > 1]
        assert not self.wrong

    def check_at_rest(self) -> None:
        """Fail where not everything is as people want it."""
        self.check()
        pods = [pod for pod in self.server.all("Pod") if is_live(pod)]
        owned = Counter(owner_of(pod) for pod in pods)
        assert len(pods) == len(self.server.all("Pod")), "no pod is left that is over"
        for session in self.server.all(names.SESSION_KIND):
            name, uid = session["metadata"]["name"], session["metadata"]["uid"]
            runs = session["spec"].get("operatingMode", "Running") == "Running"
            assert (said(session, "Ready")[0] == "True") is runs, (name, session["status"])
            assert (said(session, "Suspended")[0] == "True") is not runs, (name, session["status"])
            assert owned.pop(uid, 0) == runs, name
            pod = self.pod_at(session["status"].get("endpoint"))
            assert (pod is not None and owner_of(pod) == uid) is runs, name
        for pool in self.server.all(names.POOL_KIND):
            status, wanted = pool["status"], pool["spec"]["replicas"]
            assert owned.pop(pool["metadata"]["uid"], 0) == wanted, status
            assert (status["replicas"], status["ready"], status["starting"]) == (wanted, wanted, 0)
            claimed = [pod for pod in pods if pod["metadata"]["labels"].get(names.CLAIMED_LABEL) == pool_hash(pool)]
            assert status["claimed"] == len(claimed)
        assert not owned, "no pod is left without an owner"
        policies = Counter(
            owner_of(one) for one in self.server.all("NetworkPolicy") if "ownerReferences" in one["metadata"]
        )
        for session in self.server.all(names.SESSION_KIND):
            wants = bool(session["spec"].get("network", {}).get("egress"))
            runs = session["spec"].get("operatingMode", "Running") == "Running"
            found = policies.pop(session["metadata"]["uid"], 0)
            assert found == wants or (found == 0 and not runs), "what is suspended before its first pod needs no policy"
        assert not policies, "no policy is left without a session"

    async def check_nothing_is_written(self) -> None:
        """Fail where another look at everything, also by a process that begins, changes anything."""
        before = self.server.version
        for kind, named in (("pool", names.POOL_KIND), ("session", names.SESSION_KIND)):
            for found in self.server.all(named):
                self.process.context.queue.add(Key(kind, NAMESPACE, found["metadata"]["name"]))
        await self.go_on(10)
        await self.restart()
        await self.go_on(10)
        assert self.server.version == before

    def picture(self) -> Document:
        """Return what there is, without what may differ between two runs: names, UIDs, versions and times.

        Also without where a session's pod came from: a process that begins has not seen yet which pods are ready, and
        starts a session cold that comes in that second.
        """
        return {
            "sessions": {one["metadata"]["name"]: _shown(one) for one in self.server.all(names.SESSION_KIND)},
            "pools": {one["metadata"]["name"]: _shown(one) for one in self.server.all(names.POOL_KIND)},
            "pods": sorted(
                (pod["metadata"]["ownerReferences"][0]["kind"], pod["metadata"]["ownerReferences"][0]["name"],
                 pod["metadata"]["labels"][names.REVISION_LABEL], is_live(pod))
                for pod in self.server.all("Pod")
            ),
            "policies": sorted(one["metadata"]["name"].split("-")[0] for one in self.server.all("NetworkPolicy")),
            "keys": len(self.server.all("ConfigMap")),
        }  # fmt: skip


def said(document: Document, kind: str) -> tuple[str, str]:
    """Return status and reason of a condition; two empty words where it is not there."""
    found = [one for one in document.get("status", {}).get("conditions", []) if one["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def owner_of(document: Document) -> str:
    """Return the UID of what the object belongs to."""
    return str(document["metadata"]["ownerReferences"][0]["uid"])


def pool_hash(pool: Document) -> str:
    """Return the hash by which pods name their pool."""
    return hash_of(pool["metadata"]["uid"])


def is_live(pod: Document) -> bool:
    """Return whether the pod is neither over nor being deleted."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in {"Failed", "Succeeded"}


def is_fresh(pod: Document) -> bool:
    """Return whether the pod is live, and its first container has not ended: others are only there to be deleted."""
    containers = pod["status"].get("containerStatuses", [])
    return is_live(pod) and not any(one["lastState"] or "terminated" in one["state"] for one in containers)


def _shown(document: Document) -> Document:
    status = document.get("status", {})
    kept = {key: value for key, value in status.items() if key in {
        "className", "restarts", "replicas", "ready", "starting", "observedGeneration",
    }}  # fmt: skip
    said_of = {one["type"]: (one["status"], one["reason"], one["message"]) for one in status.get("conditions", [])}
    return {**kept, "conditions": said_of, "has pod": "podUID" in status, "has endpoint": "endpoint" in status}
