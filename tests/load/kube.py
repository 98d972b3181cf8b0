"""A plain client of the API server, and AgentSessions as a client sees them: made, watched until Ready, deleted.

Documents are JSON in and out. It does not wait between requests and limits nothing: that is up to who measures.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import orjson
from kubernetes.aio import client, config

from carrel_api import names

Document: TypeAlias = dict[str, Any]

SESSIONS = (f"/apis/{names.API_VERSION}", names.SESSION_PLURAL)
POOLS = (f"/apis/{names.API_VERSION}", names.POOL_PLURAL)
CLASSES = (f"/apis/{names.API_VERSION}", names.CLASS_PLURAL)
PODS = ("/api/v1", "pods")
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class RequestFailed(Exception):
    """The API server refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kube:
    """One API server under one kubeconfig."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path) -> AsyncIterator[Kube]:
        """Connect under the kubeconfig's current context."""
        found: Any = client.Configuration()
        await config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
        context = ssl.create_default_context(cafile=found.ssl_ca_cert)
        if found.cert_file:
            context.load_cert_chain(found.cert_file, found.key_file)
        token: str | None = await found.get_api_key_with_prefix("BearerToken")
        headers = {"Accept": "application/json", **({"Authorization": token} if token else {})}
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers, trust_env=False) as session:
            yield cls(session, found.host)

    async def call(
        self,
        method: str,
        kind: tuple[str, str],
        namespace: str = "",
        *parts: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        """Return the answer's document.

        Raises
        ------
        RequestFailed
        """
        root, plural = kind
        path = "/".join([root, *(("namespaces", namespace) if namespace else ()), plural, *parts])
        data = orjson.dumps(body) if body is not None else None
        headers = {"Content-Type": content_type} if body is not None else {}
        async with self._session.request(method, self._base + path, data=data, params=query, headers=headers) as reply:
            text = await reply.read()
            if reply.status >= 400:
                raise RequestFailed(reply.status, text.decode(errors="replace")[:500])
            return orjson.loads(text)

    async def items(self, kind: tuple[str, str], namespace: str, limit: int = 500) -> AsyncIterator[Document]:
        """Return all objects of the namespace, asked for in parts."""
        query = {"limit": str(limit)}
        while True:
            part = await self.call("GET", kind, namespace, query=query)
            for item in part["items"]:
                yield item
            if not part["metadata"].get("continue"):
                return
            query = {"limit": str(limit), "continue": part["metadata"]["continue"]}

    async def watch(self, kind: tuple[str, str], namespace: str, version: str) -> AsyncIterator[Document]:
        """Return the changes after a version, until the API server ends the stream."""
        root, plural = kind
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"{self._base}{root}/namespaces/{namespace}/{plural}"
        async with self._session.get(url, params=query, timeout=timeout, read_bufsize=2**22) as reply:
            rest = b""
            async for chunk in reply.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield orjson.loads(line)


@dataclass
class Seen:
    """One session as the watch shows it; times are of `time.perf_counter`."""

    ready_at: float | None = None
    document: Document = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def uid(self) -> str:
        return str(self.document["metadata"]["uid"])

    @property
    def status(self) -> Document:
        return self.document.get("status", {})


class Sessions:
    """The AgentSessions of one namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.seen: dict[str, Seen] = {}
        self._count = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Sessions]:
        """Watch meanwhile."""
        following = asyncio.create_task(self._follow(await self._list()))
        try:
            yield self
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def _list(self) -> str:
        """Note all that there is; return the version that the list is of."""
        part = await self.kube.call("GET", SESSIONS, self.namespace)
        found = {item["metadata"]["name"]: item for item in part["items"]}
        for document in found.values():
            self._note("MODIFIED", document)
        for name in [name for name, seen in self.seen.items() if seen.document and name not in found]:
            self.seen.pop(name).gone.set()
        return str(part["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        while True:
            async for event in self.kube.watch(SESSIONS, self.namespace, version):
                if event["type"] == "ERROR":  # also after a change of the definition: the server forgets old versions
                    version = await self._list()
                    break
                self._note(event["type"], event["object"])
                version = event["object"]["metadata"]["resourceVersion"]

    def _note(self, kind: str, document: Document) -> None:
        name = document["metadata"]["name"]
        if kind == "DELETED":
            if name in self.seen:
                self.seen.pop(name).gone.set()
            return
        seen = self.seen.setdefault(name, Seen())
        seen.document = document
        conditions = seen.status.get("conditions", [])
        if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            if seen.ready_at is None:
                seen.ready_at = time.perf_counter()
            seen.ready.set()
        else:
            seen.ready.clear()

    async def create(self, class_name: str, **spec: Any) -> str:
        """Make a session and return its name."""
        self._count += 1
        name = f"s-{self._count:06d}"
        self.seen[name] = Seen()
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.SESSION_KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"className": class_name, **spec},
        }
        await self.kube.call("POST", SESSIONS, self.namespace, body=body)
        return name

    async def start(self, class_name: str, within: float, **spec: Any) -> tuple[str, float]:
        """Make a session; return its name and the seconds from before the request until Ready was seen.

        Raises
        ------
        TimeoutError
        """
        began = time.perf_counter()
        name = await self.create(class_name, **spec)
        seen = self.seen[name]
        await asyncio.wait_for(seen.ready.wait(), within)
        assert seen.ready_at is not None
        return name, seen.ready_at - began

    async def delete(self, name: str) -> None:
        """Delete the session, and wait until the object is gone; its pod is still about to go."""
        seen = self.seen[name]
        await self.kube.call("DELETE", SESSIONS, self.namespace, name, query={"propagationPolicy": "Background"})
        await seen.gone.wait()

    async def delete_all(self, within: float) -> None:
        """Delete all, and wait until they and their pods are gone; those of pools stay."""
        await until(self._are_asked_to_go, within)
        query = {"labelSelector": names.SESSION_LABEL, "limit": "1"}

        async def gone() -> bool:
            return not self.seen and not (await self.kube.call("GET", PODS, self.namespace, query=query))["items"]

        await until(gone, within)

    async def _are_asked_to_go(self) -> bool:
        """Delete all; false where the API server, which has a minute for a request, did not come to the end."""
        try:
            await self.kube.call("DELETE", SESSIONS, self.namespace, query={"propagationPolicy": "Background"})
        except RequestFailed as error:
            if error.status != HTTPStatus.GATEWAY_TIMEOUT:
                raise
            return False
        return True


async def until(holds: Callable[[], Awaitable[bool]], within: float, pause: float = 0.1) -> None:
    """Ask until it holds.

    Raises
    ------
    TimeoutError
    """
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 (there is no event for what another program does)
            await asyncio.sleep(pause)
