"""The only module that talks to the API server.

Documents are plain JSON in and out: the generated models of the client cost ten times the time of the requests. What
Carrel owns is written with server-side apply, made with create, and deleted by UID.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeAlias

import aiohttp
import orjson
from kubernetes.aio import client, config

from carrel_api import names
from carrel_operator import metrics
from carrel_operator.errors import (
    ApiConflict,
    ApiError,
    ApiNotFound,
    ApiRefused,
    ApiUnavailable,
    ConfigurationError,
)

Document: TypeAlias = dict[str, Any]

FIELD_MANAGER: Final = names.MANAGER
TIMEOUT_SECONDS: Final = 15.0
CHUNK: Final = 500
"""Objects in one part of a list."""

_WRITES: Final = frozenset({"create", "update", "patch", "delete"})

_PATHS: Final[Mapping[str, tuple[str, str]]] = {
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    names.SESSION_KIND: (f"/apis/{names.API_VERSION}", names.SESSION_PLURAL),
    names.CLASS_KIND: (f"/apis/{names.API_VERSION}", names.CLASS_PLURAL),
    names.POOL_KIND: (f"/apis/{names.API_VERSION}", names.POOL_PLURAL),
    "Event": ("/api/v1", "events"),
}


class Cluster:
    """One API server, under the credentials of the pod's service account or of a kubeconfig."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self.fence: Callable[[], None] = lambda: None
        """Called before every write but a Lease's; raises ApiUnavailable where another replica may write by now."""

    @classmethod
    async def connect(cls) -> Cluster:
        """Return a connection with the service account's credentials, outside a cluster with those of `KUBECONFIG`.

        Raises
        ------
        ConfigurationError
            There are no credentials.
        """
        configuration = client.Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=configuration)  # pyright: ignore[reportUnknownMemberType]
            else:
                await config.load_kube_config(client_configuration=configuration)  # pyright: ignore[reportUnknownMemberType]
        except config.ConfigException as error:
            raise ConfigurationError(f"no credentials for the API server: {error}") from error
        return cls(client.ApiClient(configuration))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def find(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """Return the object, or none."""
        try:
            return await self._request("GET", kind, name=name, namespace=namespace, verb="get")
        except ApiNotFound:
            return None

    async def items(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None
    ) -> AsyncIterator[Document]:
        """Return all objects of the kind with these labels (`a=b,c=d`), asked for in parts."""
        asked = {"limit": str(CHUNK), **({"labelSelector": labels} if labels else {})}
        query = asked
        while True:
            part = await self._request("GET", kind, namespace=namespace, query=query, verb="list")
            for item in part["items"]:
                yield item
            following = part["metadata"].get("continue")
            del part  # before the next one is there
            if not following:
                return
            query = {**asked, "continue": following}

    async def create(self, manifest: Document) -> Document:
        """Make the object and return it.

        Raises
        ------
        ApiConflict
            It is there already.
        ApiRefused
            Admission or a quota refused it.
        """
        namespace = manifest["metadata"].get("namespace")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request(
            "POST", manifest["kind"], namespace=namespace, query=query, body=manifest, verb="create"
        )

    async def apply(self, manifest: Document, *, subresource: str | None = None) -> Document:
        """Apply what Carrel owns of the object, and return the whole of it."""
        metadata = manifest["metadata"]
        return await self._request(
            "PATCH",
            manifest["kind"],
            name=metadata["name"],
            namespace=metadata.get("namespace"),
            subresource=subresource,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
            verb="patch",
        )

    async def patch(self, kind: str, name: str, namespace: str, operations: list[Document]) -> Document:
        """Change the object by a JSON patch (RFC 6902), whole or not at all, and return it.

        Raises
        ------
        ApiNotFound
            It is not there.
        ApiConflict, ApiRefused
            One of the patch's tests failed, or admission refused the change.
        """
        return await self._request(
            "PATCH",
            kind,
            name=name,
            namespace=namespace,
            query={"fieldManager": FIELD_MANAGER},
            body=operations,
            content_type="application/json-patch+json",
            verb="patch",
        )

    async def replace(self, document: Document) -> Document:
        """Replace the object, if nobody changed it since it was read.

        Raises
        ------
        ApiConflict
            Somebody did.
        """
        metadata = document["metadata"]
        return await self._request(
            "PUT",
            document["kind"],
            name=metadata["name"],
            namespace=metadata["namespace"],
            body=document,
            verb="update",
        )

    async def delete(
        self,
        kind: str,
        name: str,
        namespace: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete the object, if it is there and has this UID and this version."""
        options: Document = {"propagationPolicy": "Background"}
        conditions = {"uid": uid, "resourceVersion": version}
        if any(conditions.values()):
            options["preconditions"] = {key: value for key, value in conditions.items() if value}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._request("DELETE", kind, name=name, namespace=namespace, body=options, verb="delete")
        except (ApiNotFound, ApiConflict):
            return  # gone, or already another one

    async def _request(
        self,
        method: str,
        kind: str,
        *,
        verb: str,
        name: str | None = None,
        namespace: str | None = None,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Document | list[Document] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        root, plural = _PATHS[kind]
        parts = [root, *(("namespaces", namespace) if namespace else ()), plural, name, subresource]
        path = "/".join(part for part in parts if part)
        status = "none"
        try:
            prepared = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            if verb in _WRITES and kind != "Lease":
                self.fence()  # last, since a process can stand still wherever it waits
            response: Any = await self._api.call_api(*prepared, _request_timeout=TIMEOUT_SECONDS)
            text: bytes = await response.read()
            status = str(response.status)
        except (TimeoutError, aiohttp.ClientError, client.ApiException, OSError) as error:
            raise ApiUnavailable(f"{method} {path}: the API server does not answer ({type(error).__name__})") from error
        finally:
            metrics.API_REQUESTS.labels(verb=verb, resource=plural, status=status).inc()
        if int(status) >= 400:
            raise _error(int(status), f"{method} {path}", text)
        return orjson.loads(text)


def _error(status: int, what: str, text: bytes) -> ApiError:
    try:
        message = str(orjson.loads(text)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"status {status}"
    kinds: dict[int, type[ApiError]] = {
        400: ApiRefused,
        403: ApiRefused,
        404: ApiNotFound,
        409: ApiConflict,
        422: ApiRefused,
    }
    return kinds.get(status, ApiUnavailable)(f"{what}: {message}")
