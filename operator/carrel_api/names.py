"""Names that more than one part must spell the same way: group, kinds, labels, annotations, well-known objects."""

from __future__ import annotations

from typing import Final

GROUP: Final = "carrel.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "carrel.dev/v1alpha1"

SESSION_KIND: Final = "AgentSession"
SESSION_PLURAL: Final = "agentsessions"
CLASS_KIND: Final = "SessionClass"
CLASS_PLURAL: Final = "sessionclasses"
POOL_KIND: Final = "SessionPool"
POOL_PLURAL: Final = "sessionpools"

COMPONENT_LABEL: Final = "carrel.dev/component"
"""`kernel` on every kernel pod; network policies select by it, and admission keeps everybody else from using it."""
KERNEL_COMPONENT: Final = "kernel"
SESSION_LABEL: Final = "carrel.dev/session"
"""Hash of the AgentSession's UID, on all that is made for it."""
OWNER_LABEL: Final = "carrel.dev/owner"
"""Hash of `spec.owner`."""
TENANT_LABEL: Final = "carrel.dev/tenant"
"""On pods the hash of `spec.tenant`; on a namespace the tenant that it belongs to."""
CLASS_LABEL: Final = "carrel.dev/class"
POOL_LABEL: Final = "carrel.dev/pool"
"""Hash of the SessionPool's UID, on a pod that is nobody's yet."""
CLAIMED_LABEL: Final = "carrel.dev/claimed-from"
"""Hash of the SessionPool's UID, on a session's pod that came from one."""
CLAIMED_ANNOTATION: Final = "carrel.dev/claimed-time"
"""When that pod became the session's."""
COLD_START_ANNOTATION: Final = "carrel.dev/cold-start-reason"
"""Why a session's pod was not taken from a pool, where there is one."""
REVISION_LABEL: Final = "carrel.dev/revision"
"""Hash of the pod's spec as it was built: what has another one than a session would get is not for that session."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "carrel-operator"

DEFAULT_CLASS_ANNOTATION: Final = "carrel.dev/is-default-class"
"""`"true"` on the SessionClass that sessions without a class name get; the newest, where several carry it."""

SNAPSHOT_FAILURE_ANNOTATION: Final = "carrel.dev/snapshot-failure"
"""On an AgentSession: why a gateway could not save its state yet, in words; taken away when it could."""

KERNEL_PORT: Final = 8888
"""The one port of a kernel host inside a pod."""
CLOSED_PORT: Final = 8889
"""A kernel host listens there too, and no policy ever opens it: whoever reaches it has seen that none is enforced."""
KERNEL_CONTAINER: Final = "kernel"
KEYS_CONFIG_MAP: Final = "carrel-kernel-keys"
"""In each session namespace: the public keys that kernel hosts trust."""
KEYS_FILE: Final = "keys.json"
