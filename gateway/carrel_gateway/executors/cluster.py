"""The few calls to the API server that the kubernetes executor makes; the only module of the gateway that makes any.

Plain requests over aiohttp; address and credentials as the Kubernetes client library reads them: inside a cluster the
mounted service account, outside the kubeconfig. Objects are plain dictionaries, checked where they are used.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, cast

import aiohttp
import msgspec
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException

from carrel_gateway.errors import ExecutorFailed, Unavailable
from carrel_gateway.kernels.ndjson import LineTooLongError, TornLineError, lines

Object = dict[str, Any]

GROUP: Final = "carrel.dev"
VERSION: Final = "v1alpha1"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, sock_connect=5)
_PAGE: Final = 500
_GOODBYE_SECONDS: Final = 0.25
"""aiohttp waits for none of them. Source: its documentation, "Graceful Shutdown"."""
_POD_NAME: Final = re.compile(r"[a-z0-9][-a-z0-9.]{0,252}")
"""Of a status, so it may be forged: without a slash and without a leading dot it stays one segment of the address."""


class ConflictError(Exception):
    """The object is there already, or is not what the call expected (409)."""


class Cluster:
    """AgentSessions and pods of one namespace."""

    def __init__(self, configuration: client.Configuration, namespace: str) -> None:
        self._configuration = configuration
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=RESTClientObject(configuration).ssl_context, limit=0)
        )
        self.namespace = namespace
        base = str(configuration.host).rstrip("/")
        self._nodes = f"{base}/api/v1/nodes"
        self._reviews = f"{base}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        self._sessions = f"{base}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/agentsessions"
        self._pods = f"{base}/api/v1/namespaces/{namespace}/pods"

    @classmethod
    async def open(cls, namespace: str) -> Cluster:
        """Read address and credentials of the API server.

        Raises
        ------
        Unavailable
            There are none.
        """
        configuration = client.Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=configuration)
            else:
                # Named here, because the library looks at the variable only when it is imported.
                file = os.environ.get("KUBECONFIG")
                await config.load_kube_config(config_file=file, client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise Unavailable(
                "The kubernetes executor found no cluster: run the gateway in a pod, or set KUBECONFIG."
            ) from error
        return cls(configuration, namespace)

    async def aclose(self) -> None:
        """Close the connections. Those of watches that were left say goodbye in the background, over TLS."""
        await self._http.close()
        await asyncio.sleep(_GOODBYE_SECONDS)

    async def get_session(self, name: str) -> Object | None:
        """Return the AgentSession of this name."""
        return await self._get(f"{self._sessions}/{name}")

    async def find_session(self, uid: str) -> Object | None:
        """Return the AgentSession with this `metadata.uid`, looked for page by page: there is no selector for it."""
        async with aclosing(self.list_sessions()) as found:
            async for item in found:
                if item["metadata"]["uid"] == uid:
                    return item
        return None

    async def list_sessions(self, labels: Mapping[str, str] = MappingProxyType({})) -> AsyncGenerator[Object, None]:
        """Yield the AgentSessions with these labels."""
        async with aclosing(self.session_pages(labels)) as pages:
            async for page in pages:
                for item in page["items"]:
                    yield cast("Object", item)

    async def session_pages(self, labels: Mapping[str, str] = MappingProxyType({})) -> AsyncGenerator[Object, None]:
        """Yield lists of AgentSessions with these labels, all of the same `metadata.resourceVersion`."""
        query = {"limit": str(_PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{name}={value}" for name, value in labels.items())
        token = ""
        while True:
            page = await self._get(self._sessions, {**query, **({"continue": token} if token else {})})
            if page is None:
                return
            yield page
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def create_session(self, name: str, spec: Mapping[str, Any], labels: Mapping[str, str]) -> Object:
        """Create an AgentSession.

        Raises
        ------
        ConflictError
            The name is taken.
        """
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "AgentSession",
            "metadata": {"name": name, "labels": dict(labels)},
            "spec": dict(spec),
        }
        return msgspec.json.decode(await self._call("POST", self._sessions, body=body), type=Object)

    async def patch_session(
        self, name: str, version: str, spec: Mapping[str, Any], annotations: Mapping[str, str | None] | None = None
    ) -> None:
        """Change an AgentSession that has this `resourceVersion`; nothing happens when it is gone.

        An annotation that is none is removed.

        Raises
        ------
        ConflictError
            It has another version by now.
        """
        metadata = {"resourceVersion": version, **({"annotations": dict(annotations)} if annotations else {})}
        await self._patch(name, {"metadata": metadata, "spec": dict(spec)})

    async def annotate_session(self, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of an AgentSession, or remove those that are none; nothing happens when it is gone."""
        await self._patch(name, {"metadata": {"annotations": dict(annotations)}})

    async def _patch(self, name: str, body: Object) -> None:
        try:
            await self._call("PATCH", f"{self._sessions}/{name}", body=body)
        except _MissingError:
            return

    async def delete_session(self, name: str, uid: str) -> None:
        """Delete this very AgentSession, and with it what it owns; nothing happens when it is gone."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            await self._call("DELETE", f"{self._sessions}/{name}", body=body)
        except (_MissingError, ConflictError):  # 409: another object has the name by now
            return

    async def get_pod(self, name: str) -> Object | None:
        """Return the pod of this name; none where it is no name."""
        return await self._get(f"{self._pods}/{name}") if _POD_NAME.fullmatch(name) else None

    async def count(self) -> None:
        """Ask for one AgentSession: checks address, credentials, permission and the definition at once."""
        if await self._get(self._sessions, {"limit": "1"}) is None:
            raise Unavailable("The cluster has no AgentSession resource; install Carrel's CRDs and operator.")

    async def may(self, verb: str, resource: str, *, group: str = "") -> bool:
        """Return whether the account may do something in the namespace, as the API server says it."""
        asked = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        review = msgspec.json.decode(await self._call("POST", self._reviews, body=body), type=Object)
        return bool(review["status"].get("allowed"))

    async def pid_limits(self) -> dict[str, int]:
        """Return the kubelets' `podPidsLimit` by the names of nodes; -1 is none.

        Raises
        ------
        ExecutorFailed
            The account may not look at nodes, as a gateway's own may not.
        """
        found: dict[str, int] = {}
        for node in ((await self._get(self._nodes)) or {}).get("items", []):
            name = str(node["metadata"]["name"])
            kubelet = await self._get(f"{self._nodes}/{name}/proxy/configz") if _POD_NAME.fullmatch(name) else None
            if kubelet:
                found[name] = int(kubelet["kubeletconfig"].get("podPidsLimit", -1))
        return found

    async def watch_session(self, name: str, *, seconds: float) -> AsyncGenerator[Object | None, None]:
        """Yield the AgentSession as it is, and at every change for a time; none when it was deleted."""
        async with aclosing(self._watch({"fieldSelector": f"metadata.name={name}"}, seconds)) as events:
            async for kind, found in events:
                yield None if kind == "DELETED" else found

    async def watch_sessions(self, version: str, *, seconds: float) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield what happens to AgentSessions after a list of this `resourceVersion`: `ADDED`, `MODIFIED`, `DELETED`.

        Ends after the time, or when the API server does not know the version any more.
        """
        async with aclosing(self._watch({"resourceVersion": version}, seconds)) as events:
            async for event in events:
                yield event

    async def _watch(self, which: Mapping[str, str], seconds: float) -> AsyncGenerator[tuple[str, Object], None]:
        query = {"watch": "true", "timeoutSeconds": str(max(1, int(seconds))), **which}
        timeout = aiohttp.ClientTimeout(total=seconds + 5, sock_connect=5)
        try:
            async with (
                self._request("GET", self._sessions, query=query, timeout=timeout) as reply,
                aclosing(lines(reply.content.iter_any())) as stream,
            ):
                async for line in stream:
                    event = msgspec.json.decode(line, type=Object)
                    if event["type"] == "ERROR":
                        return  # such as 410 Gone: the caller begins again
                    yield event["type"], event["object"]
        except (TornLineError, LineTooLongError):
            return

    # ------------------------------------------------------------------ transport

    async def _get(self, url: str, query: Mapping[str, str] | None = None) -> Object | None:
        try:
            return msgspec.json.decode(await self._call("GET", url, query=query), type=Object)
        except _MissingError:
            return None

    async def _call(
        self, method: str, url: str, *, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> bytes:
        async with self._request(method, url, query=query, body=body, timeout=_TIMEOUT) as reply:
            return await reply.read()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  handed to aiohttp, which has one of its own
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        headers = {"Accept": "application/json", **({"Authorization": token} if token else {})}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            async with self._http.request(
                method, url, params=query, json=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as reply:
                if reply.status >= 300:
                    raise _refusal(reply.status, await reply.read())
                yield reply
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExecutorFailed(
                "The cluster's API server cannot be reached; try again.", reason="ApiServer"
            ) from error


class _MissingError(Exception):
    """Nothing has this name (404)."""


def _refusal(status: int, body: bytes) -> Exception:
    try:
        message = str(msgspec.json.decode(body, type=Object).get("message", ""))
    except msgspec.DecodeError:
        message = ""
    match status:
        case 404:
            return _MissingError()
        case 409:
            return ConflictError(message)
        case 401 | 403:
            if "exceeded quota" in message:
                return ExecutorFailed(
                    f"The cluster's quota allows no further session: {message}", reason="QuotaExceeded"
                )
            return ExecutorFailed(
                f"The cluster refused the gateway's account: {message}. Check its Role in the session namespace.",
                reason="Forbidden",
            )
        case 400 | 422:
            return ExecutorFailed(f"The cluster refused the session: {message}", reason="Invalid")
        case _:
            return ExecutorFailed(
                f"The cluster's API server answered with status {status}; try again.", reason="ApiServer"
            )
