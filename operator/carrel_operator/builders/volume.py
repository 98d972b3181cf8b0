"""The claim of a persistent workspace."""

from __future__ import annotations

from carrel_api.session import AgentSession
from carrel_operator.builders.identity import Manifest, claim_name, session_metadata
from carrel_operator.settlement import Settlement


def workspace_claim(session: AgentSession, settled: Settlement) -> Manifest:
    """Return the PersistentVolumeClaim of the session's workspace; it lives as long as the session."""
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": settled.workspace_size}},
    }
    if settled.allowed.workspace.storage_class_name is not None:
        spec["storageClassName"] = settled.allowed.workspace.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": session_metadata(session, claim_name(session)),
        "spec": spec,
    }
