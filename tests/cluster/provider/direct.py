"""Asking the API server without kubectl: one process for each look costs more than what is looked at.

`Direct` reads and writes what `kubectl get`, `apply --server-side`, `patch` and `delete` do, over connections that are
kept, and gives the same objects. It knows the words that tests use and no more: what it does not know, cannot reach or
is refused in another way than that something is not there, it leaves to kubectl (`Unknown`), whose answer it is then.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
FRESH_SECONDS: Final = 10.0
"""How long what the server serves is taken for known, but for a new word; kubectl takes it so for hours."""
_SECONDS: Final = 60.0
_FLAGS: Final = {
    "-n": "namespace",
    "--namespace": "namespace",
    "-l": "labelSelector",
    "--selector": "labelSelector",
    "--field-selector": "fieldSelector",
}


class Unknown(Exception):
    """This is kubectl's to do, or to refuse."""


class Missing(Exception):
    """Something is not there; the message is that of kubectl."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of objects, as the server serves it."""

    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return where objects of it are; without a namespace, those of all."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.is_namespaced and namespace else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name else "")

    @property
    def api_version(self) -> str:
        """Return what objects say of it."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(slots=True)
class Query:
    """What `kubectl get` was asked for."""

    kinds: list[str]
    names: list[str]
    namespace: str | None = None
    everywhere: bool = False
    selectors: dict[str, str] = field(default_factory=dict[str, str])


def read_query(arguments: Sequence[str]) -> Query:
    """Return what the words of `kubectl get` ask for.

    Raises
    ------
    Unknown
        There is a word that is not known here.
    """
    plain: list[str] = []
    query, rest = Query([], []), list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            plain.append(word)
            continue
        if word in ("-A", "--all-namespaces"):
            query.everywhere = True
            continue
        flag, given, value = word.partition("=")
        if flag not in _FLAGS or not (given or rest):
            raise Unknown(word)
        value = value if given else rest.pop(0)
        if _FLAGS[flag] == "namespace":
            query.namespace = value
        else:
            query.selectors[_FLAGS[flag]] = value
    if not plain:
        raise Unknown("no kind")
    if "/" in plain[0]:
        if len(plain) > 1 or "," in plain[0]:
            raise Unknown("several kinds with names")
        kind, _, name = plain[0].partition("/")
        query.kinds, query.names = [kind], [name]
    else:
        query.kinds, query.names = plain[0].split(","), plain[1:]
    if query.names and (len(query.kinds) > 1 or query.selectors or query.everywhere):
        raise Unknown("names beside something else")
    return query


class Direct:
    """The API server of a kubeconfig's current context, with its identity."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._client: httpx.Client | None = None
        self._namespace = "default"
        self._kinds: dict[str, Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self._known_at = float("-inf")

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get … --output=json` prints.

        Raises
        ------
        Unknown
            It is to be asked by kubectl.
        Missing
            It is not there.
        """
        query = read_query(arguments)
        kinds = [self._kind(word) for word in query.kinds]
        namespace = None if query.everywhere else query.namespace or self._namespace
        if len(query.names) == 1:
            return self._one(kinds[0], namespace, query.names[0])
        items: list[Any] = [self._one(kinds[0], namespace, name) for name in query.names]
        if not query.names:
            for kind in kinds:
                listed = self._ask("GET", kind.path(namespace), params=query.selectors)
                of_kind = {"apiVersion": kind.api_version, "kind": kind.kind}
                items += [_shown({**of_kind, **item}) for item in listed["items"]]
        return {"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}}

    def apply(self, document: dict[str, Any], namespace: str | None) -> None:
        """Apply one object on the server's side, as kubectl does.

        Raises
        ------
        Unknown
            It is to be applied by kubectl, which says what is wrong.
        """
        group, _, version = str(document["apiVersion"]).rpartition("/")
        kind = self._served(group, version, document["kind"])
        metadata = document["metadata"]
        inside = metadata.get("namespace")
        if inside and namespace and inside != namespace:
            raise Unknown("two namespaces")
        where = inside or namespace or self._namespace
        try:
            self._ask(
                "PATCH",
                kind.path(where, metadata["name"]),
                params={"fieldManager": "kubectl", "fieldValidation": "Strict"},
                headers={"Content-Type": "application/apply-patch+yaml"},
                json=document,
            )
        except Missing as error:  # of the namespace
            raise Unknown(str(error)) from error

    def patch(self, word: str, name: str, body: dict[str, Any], namespace: str | None, subresource: str) -> None:
        """Merge into an object, as `kubectl patch --type=merge` does.

        Raises
        ------
        Unknown
            It is to be patched by kubectl, which says what is wrong.
        """
        path = self._kind(word).path(namespace or self._namespace, name)
        headers, params = {"Content-Type": "application/merge-patch+json"}, {"fieldManager": "kubectl-patch"}
        try:
            self._ask("PATCH", f"{path}/{subresource}".rstrip("/"), params=params, headers=headers, json=body)
        except Missing as error:
            raise Unknown(str(error)) from error

    def delete(self, word: str, name: str, namespace: str | None) -> None:
        """Have an object be deleted, and what it owns after it; whoever holds it is not waited for.

        Raises
        ------
        Unknown
            It is to be deleted by kubectl.
        Missing
            It is not there.
        """
        path = self._kind(word).path(namespace or self._namespace, name)
        self._ask("DELETE", path, params={"propagationPolicy": "Background"})

    def _one(self, kind: Kind, namespace: str | None, name: str) -> Any:
        return _shown(self._ask("GET", kind.path(namespace, name)))

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        client = self._connected()
        try:
            answer = client.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unknown(str(error)) from error
        if answer.is_success:
            return answer.json()
        said = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        if said.get("reason") == "NotFound" and said.get("details", {}).get("name"):
            raise Missing(f"Error from server (NotFound): {said['message']}")
        if answer.status_code == 404:  # the kind is not served there any more
            self._known_at = float("-inf")
        raise Unknown(answer.text)

    def _kind(self, word: str) -> Kind:
        """Return the kind of a word as kubectl takes it: plural, singular, short name, with a group after a dot."""
        if time.monotonic() - self._known_at > FRESH_SECONDS or word.lower() not in self._kinds:
            self._discover()
        found = self._kinds.get(word.lower())
        if found is None:
            raise Unknown(word)
        return found

    def _served(self, group: str, version: str, kind: str) -> Kind:
        if (group, kind) not in self._by_kind:
            self._discover()
        found = self._by_kind.get((group, kind))
        if found is None:
            raise Unknown(kind)
        return Kind(group, version, kind, found.plural, found.is_namespaced)

    def _discover(self) -> None:
        self._kinds, self._by_kind = {}, {}
        for path in ("/api", "/apis"):
            found = self._ask("GET", path, headers={"Accept": DISCOVERY})
            if found.get("kind") != "APIGroupDiscoveryList":
                raise Unknown("a server that does not tell all of its kinds at once")
            for group in found["items"]:
                self._learn(group)
        self._known_at = time.monotonic()

    def _learn(self, group: dict[str, Any]) -> None:
        name = group["metadata"].get("name", "")
        for version in group["versions"]:  # the preferred one first
            for resource in version.get("resources", []):
                if "responseKind" not in resource:
                    continue
                plural, kind = resource["resource"], resource["responseKind"]["kind"]
                made = Kind(name, version["version"], kind, plural, resource["scope"] == "Namespaced")
                self._by_kind.setdefault((name, kind), made)
                words = [plural, resource.get("singularResource", ""), kind.lower(), *resource.get("shortNames", [])]
                for word in filter(None, words):
                    self._kinds.setdefault(word, made)
                    self._kinds.setdefault(f"{word}.{name}", made)

    def _connected(self) -> httpx.Client:
        if self._client is None:
            try:
                self._client, self._namespace = _client(yaml.safe_load(self._kubeconfig.read_text(encoding="utf-8")))
            except (KeyError, StopIteration, OSError) as error:
                raise Unknown(f"a kubeconfig that is kubectl's to understand: {error!r}") from error
            weakref.finalize(self, self._client.close)
        return self._client


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what kubectl does not show unless told to."""
    found["metadata"].pop("managedFields", None)
    return found


def _client(document: dict[str, Any]) -> tuple[httpx.Client, str]:
    """Return a client with the identity of the current context, and the namespace of that."""
    context = _named(document["contexts"], document["current-context"])["context"]
    server = _named(document["clusters"], context["cluster"])["cluster"]
    user = _named(document["users"], context["user"])["user"]
    verify = ssl.create_default_context(cadata=_part(server, "certificate-authority").decode())
    headers: dict[str, str] = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        with tempfile.NamedTemporaryFile() as both:  # readable by this user alone; the library reads files only
            both.write(_part(user, "client-certificate") + b"\n" + _part(user, "client-key"))
            both.flush()
            verify.load_cert_chain(both.name)
    client = httpx.Client(base_url=server["server"], verify=verify, headers=headers, timeout=_SECONDS, trust_env=False)
    return client, context.get("namespace") or "default"


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _part(entry: dict[str, Any], name: str) -> bytes:
    data = entry.get(f"{name}-data")
    return base64.b64decode(data) if data else Path(entry[name]).read_bytes()
