"""Names, labels and owner references of everything that is made for a session."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

from carrel_api import names
from carrel_api.common import Metadata
from carrel_api.session import AgentSession

Manifest: TypeAlias = dict[str, Any]


def hash_of(text: str) -> str:
    """Return 32 hexadecimal digits that stand for the text in a label value."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def pod_name(session: AgentSession) -> str:
    """Return the one name that the session's pod may have: readable, and never another session's."""
    return _stem(session.metadata.name, session.metadata.uid)


def claim_name(session: AgentSession) -> str:
    """Return the name of the session's PersistentVolumeClaim."""
    return f"{pod_name(session)}-workspace"


def egress_policy_name(session: AgentSession) -> str:
    """Return the name of the policy that opens what the session may reach."""
    return egress_policy_of(session.metadata.name, session.metadata.uid)


def egress_policy_of(name: str, uid: str) -> str:
    """Return the name of the egress policy of the session with this name and UID."""
    return f"{_stem(name, uid)}-egress"


def session_labels(session: AgentSession) -> dict[str, str]:
    """Return the labels of everything that is made for the session; all values are made here, none is copied."""
    labels = {names.MANAGED_BY_LABEL: names.MANAGER, names.SESSION_LABEL: hash_of(session.metadata.uid)}
    if session.spec.owner:
        labels[names.OWNER_LABEL] = hash_of(session.spec.owner)
    if session.spec.tenant:
        labels[names.TENANT_LABEL] = hash_of(session.spec.tenant)
    return labels


def owner_reference(kind: str, owner: Metadata) -> Manifest:
    """Return the reference by which the cluster deletes an object with its session or pool."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def session_metadata(session: AgentSession, name: str, *, labels: dict[str, str] | None = None) -> Manifest:
    """Return the metadata of an object that belongs to the session."""
    return {
        "name": name,
        "namespace": session.metadata.namespace,
        "labels": {**session_labels(session), **(labels or {})},
        "ownerReferences": [owner_reference(names.SESSION_KIND, session.metadata)],
    }


def _stem(name: str, uid: str) -> str:
    return f"{name[:52].rstrip('-')}-{hash_of(uid)[:10]}"
