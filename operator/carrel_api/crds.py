"""The three CustomResourceDefinitions, made from the models."""

from __future__ import annotations

from typing import Any, TypeAlias

from carrel_api import names
from carrel_api.schema import structural_schema
from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClass
from carrel_api.session_pool import SessionPool

Manifest: TypeAlias = dict[str, Any]


def _column(name: str, path: str, description: str, *, kind: str = "string", wide: bool = False) -> Manifest:
    column: Manifest = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": 1} if wide else column


AGE = _column("Age", ".metadata.creationTimestamp", "Time since it was made.", kind="date")
SESSION_COLUMNS = [
    _column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the kernel can be worked with."),
    _column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is or is not."),
    _column("Class", ".status.className", "The session class."),
    AGE,
    _column("Owner", ".spec.owner", "Whose it is.", wide=True),
    _column("Node", ".status.nodeName", "Where its pod runs.", wide=True),
    _column("Endpoint", ".status.endpoint", "Address of its kernel host.", wide=True),
    _column("Pool", ".status.pool", "The pool that its pod came from.", wide=True),
]
POOL_COLUMNS = [
    _column("Class", ".spec.className", "The session class."),
    _column("Replicas", ".spec.replicas", "How many pods are wanted.", kind="integer"),
    _column("Ready", ".status.ready", "How many may be claimed.", kind="integer"),
    _column("Starting", ".status.starting", "How many are on their way.", kind="integer"),
    _column("Claimed", ".status.claimed", "How many sessions got one.", kind="integer"),
    AGE,
]
CLASS_COLUMNS = [
    _column(
        "Default",
        f".metadata.annotations.{names.DEFAULT_CLASS_ANNOTATION.replace('.', chr(92) + '.')}",
        "Whether sessions without a class name get it.",
    ),
    _column("CPU", ".spec.maximumResources.cpu", "The most CPUs."),
    _column("Memory", ".spec.maximumResources.memory", "The most memory."),
    AGE,
    _column("Runtime", ".spec.runtimeClassName", "The runtime class.", wide=True),
]


def definitions() -> dict[str, Manifest]:
    """Return file name → manifest."""
    session = _definition(
        AgentSession, kind=names.SESSION_KIND, plural=names.SESSION_PLURAL, short="ags", scope="Namespaced"
    )
    version = session["spec"]["versions"][0]
    version["subresources"] = {"status": {}}
    version["additionalPrinterColumns"] = SESSION_COLUMNS
    session_class = _definition(
        SessionClass, kind=names.CLASS_KIND, plural=names.CLASS_PLURAL, short="agsc", scope="Cluster"
    )
    session_class["spec"]["versions"][0]["additionalPrinterColumns"] = CLASS_COLUMNS
    pool = _definition(SessionPool, kind=names.POOL_KIND, plural=names.POOL_PLURAL, short="agsp", scope="Namespaced")
    version = pool["spec"]["versions"][0]
    version["subresources"] = {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    version["additionalPrinterColumns"] = POOL_COLUMNS
    return {"agentsessions.yaml": session, "sessionclasses.yaml": session_class, "sessionpools.yaml": pool}


def _definition(
    model: type[AgentSession | SessionClass | SessionPool], *, kind: str, plural: str, short: str, scope: str
) -> Manifest:
    schema = structural_schema(model)
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "description": "Version of the schema."}
    properties["kind"] = {"type": "string", "description": f"Always {kind}."}
    properties["metadata"] = {"type": "object"}
    if "status" in properties:
        properties["status"].pop("default", None)
    schema["required"] = ["metadata", "spec"] if "spec" in schema.get("required", []) else ["metadata"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["carrel"],
            },
            "versions": [
                {"name": names.VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
