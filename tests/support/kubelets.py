"""Kubelets and kernel hosts in memory: pods start, end and fail; hosts are bound once, and forget it with their
container.

A pod gets its node and its container soon after it was made, and is gone soon after it was deleted. What the real
kernel host guarantees is kept here: bind is idempotent for one session, 409 for another, and in force as long as the
container runs; what has been saved is sealed. Nothing else of pods is modelled: no resources, images, probes, networks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.api_server import ApiServer, Document, stamp

from carrel_api import names
from carrel_operator.errors import HostRefused, HostUnreachable
from carrel_operator.isolation import Sight
from carrel_operator.sighting import Target
from carrel_wire.host import BindReply, BindRequest, HostState

SCHEDULED, STARTED, LISTENS, ENDED, RESTARTED = 0.05, 0.5, 0.3, 1.0, 2.0
"""Seconds until a pod has a node, its container runs, its host listens; until it has ended; until the next
container."""
LATENCY = 0.002


@dataclass
class Host:
    """The kernel host of one container."""

    session_uid: str | None = None
    listens: bool = False
    unsaved: bool = False
    """Whether there is state that would be lost."""
    sealed: bool = False


class Kubelets:
    """All nodes, and the kernel hosts on them; stands for `Hosts` and `Lookout` too."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._hosts: dict[tuple[str, str], Host] = {}
        """By the UID of the pod and the id of the container."""
        self.bound: defaultdict[str, set[str]] = defaultdict(set)
        """UIDs of the sessions that a pod's hosts were ever bound to."""
        self._number = 0
        server.listeners.append(self._heard)

    # ------------------------------------------------------------------ pods

    def _heard(self, event: str, kind: str, document: Document) -> None:
        if kind != "Pod":
            return
        if event == "ADDED":
            self._later(SCHEDULED, self._schedule, document)
        elif event == "MODIFIED" and "deletionTimestamp" in document["metadata"]:
            self._later(ENDED, self._end, document)

    def _later(self, seconds: float, act: Any, pod: Document) -> None:
        asyncio.get_running_loop().call_later(seconds, self._if_there, act, pod["metadata"])

    def _if_there(self, act: Any, metadata: Document) -> None:
        found = self._server.find("Pod", metadata["name"], metadata["namespace"])
        if found is not None and found["metadata"]["uid"] == metadata["uid"]:
            act(found)

    def _schedule(self, pod: Document) -> None:
        def place(document: Document) -> None:
            document["spec"]["nodeName"] = "node-1"
            document["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]

        self._change(pod, place)
        self._later(STARTED, self._start, pod)

    def _start(self, pod: Document) -> None:
        """Start a container, unless one runs or the pod is over."""
        if "deletionTimestamp" in pod["metadata"] or pod["status"]["phase"] in {"Failed", "Succeeded"}:
            return
        self._number += 1
        container, address = f"containerd://{self._number}", f"10.1.{self._number // 250}.{self._number % 250 + 1}"
        self._hosts[pod["metadata"]["uid"], container] = Host()

        def run(document: Document) -> None:
            status = document["status"]
            known: list[Document] = status.get("containerStatuses", [])
            state: Document = {"running": {"startedAt": stamp(datetime.now(UTC))}}
            last = {"terminated": known[0]["state"]["terminated"]} if known else {}
            status |= {
                "phase": "Running",
                "podIP": status.get("podIP", address),
                "containerStatuses": [
                    {"name": names.KERNEL_CONTAINER, "containerID": container, "state": state, "lastState": last}
                ],
            }

        self._change(pod, run)
        self._later(LISTENS, self._listen, pod)

    def _listen(self, pod: Document) -> None:
        host = self.host_in(pod)
        if host is not None:
            host.listens = True

    def _end(self, pod: Document) -> None:
        self._server.finish("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])

    def _change(self, pod: Document, act: Any) -> None:
        self._server.change("Pod", pod["metadata"]["name"], act, pod["metadata"]["namespace"])

    # faults

    def crash(self, pod: Document, reason: str = "Error", code: int = 1) -> None:
        """End the container of the pod; the next one follows."""
        if self.host_in(pod) is None:
            return
        end = {"reason": reason, "exitCode": code, "finishedAt": stamp(datetime.now(UTC))}

        def stop(document: Document) -> None:
            document["status"]["containerStatuses"][0]["state"] = {"terminated": end}

        self._change(pod, stop)
        self._later(RESTARTED, self._start, pod)

    def evict(self, pod: Document) -> None:
        """End the pod for good, as for want of node storage."""

        def fail(document: Document) -> None:
            document["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "the node was low on storage"}
            for container in document["status"].get("containerStatuses", []):
                container["state"] = {}

        if pod["status"]["phase"] not in {"Failed", "Succeeded"}:
            self._change(pod, fail)

    # ------------------------------------------------------------------ kernel hosts

    def host_in(self, pod: Document) -> Host | None:
        """Return the kernel host that runs in the pod, if one does."""
        for container in pod["status"].get("containerStatuses", []):
            if "running" in container["state"]:
                return self._hosts[pod["metadata"]["uid"], container["containerID"]]
        return None

    async def _host(self, pod_uid: str, endpoint: str | None = None) -> Host:
        await asyncio.sleep(LATENCY)
        for pod in self._server.all("Pod"):
            host = self.host_in(pod)
            if pod["metadata"]["uid"] == pod_uid and host is not None and host.listens:
                if endpoint not in (None, f"{pod['status']['podIP']}:{names.KERNEL_PORT}"):
                    raise HostRefused("unauthenticated", "token is for another host")
                return host
        raise HostUnreachable("the kernel host does not answer")

    async def bind(self, endpoint: str, request: BindRequest) -> BindReply:
        """Make the host the session's."""
        host = await self._host(request.pod_uid, endpoint)
        if host.session_uid not in (None, request.session_uid):
            raise HostRefused("already_bound", "bound to another session")
        already, host.session_uid = host.session_uid is not None, request.session_uid
        self.bound[request.pod_uid].add(request.session_uid)
        await asyncio.sleep(LATENCY)
        return BindReply(host_id=request.pod_uid, boot_id="b", session_uid=request.session_uid, already=already)

    async def state(self, endpoint: str, pod_uid: str) -> HostState:
        """Return the host's state."""
        host = await self._host(pod_uid, endpoint)
        return HostState(
            host_id=pod_uid, boot_id="b", session_uid=host.session_uid, kernels=[], last_activity=0.0, busy=False,
            connections=0, disk_used_bytes=0, unacknowledged=[],
        )  # fmt: skip

    async def look(self, _: Target, *, unbound: bool) -> Sight:
        """See that the pod is isolated, as `Lookout` would where policies are enforced."""
        await asyncio.sleep(1.0)
        return Sight("connected", "timeout", "timeout" if unbound else None, datetime.now(UTC))
