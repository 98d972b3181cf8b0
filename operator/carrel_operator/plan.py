"""What a pass wants done: a closed set of writes and calls, the status, and when to look again. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from carrel_api.session import AgentSessionStatus
from carrel_api.session_pool import SessionPoolStatus
from carrel_operator.builders.identity import Manifest
from carrel_operator.observed import PodView
from carrel_wire.host import BindRequest


@dataclass(frozen=True)
class PrepareNamespace:
    """Network policies and keys are in place before the first pod is."""


@dataclass(frozen=True)
class CreateClaim:
    manifest: Manifest


@dataclass(frozen=True)
class CreatePod:
    manifest: Manifest


@dataclass(frozen=True)
class ClaimPod:
    """Make one of these pods of pools the session's: the first that nobody else was faster with."""

    candidates: tuple[PodView, ...]


@dataclass(frozen=True)
class DeletePod:
    name: str
    uid: str
    """Only this very pod."""
    force: bool = False
    """Without a grace period: its node no longer answers."""


@dataclass(frozen=True)
class ApplyEgress:
    manifest: Manifest


@dataclass(frozen=True)
class DeleteEgress:
    name: str


@dataclass(frozen=True)
class Bind:
    """Make the pod's kernel host this session's."""

    endpoint: str
    container_id: str | None
    request: BindRequest


@dataclass(frozen=True)
class Look:
    """See whether the pod is isolated, before its kernel host is anybody's."""

    pod: PodView
    endpoint: str
    waits: bool = True
    """Whether to wait until it has been seen; else only until the host tries, and the look ends beside what follows."""


@dataclass(frozen=True)
class AskState:
    """Ask the kernel host whether it idles."""

    pod_uid: str
    endpoint: str


@dataclass(frozen=True)
class DeleteSession:
    """The session's life is over and it is not to be retained."""


Action: TypeAlias = (
    PrepareNamespace
    | CreateClaim
    | CreatePod
    | ClaimPod
    | DeletePod
    | ApplyEgress
    | DeleteEgress
    | Look
    | Bind
    | AskState
    | DeleteSession
)


@dataclass(frozen=True)
class Plan:
    """The outcome of a decision."""

    actions: tuple[Action, ...] = ()
    """To be carried out in order."""
    status: AgentSessionStatus | None = None
    """What the session's status must be; none where it is to be left alone."""
    after: float | None = None
    """Look again after so many seconds; none: when something changes."""
    retry: bool = False
    """Look again with growing delays, because something failed."""


@dataclass(frozen=True)
class PoolPlan:
    """The outcome of a decision about a pool."""

    actions: tuple[Action, ...] = ()
    prepare: tuple[PodView, ...] = ()
    """Pods whose kernel hosts are to be asked whether they are ready for whoever comes."""
    status: SessionPoolStatus | None = None
    after: float | None = None
    """Look again after so many seconds."""
    retry: bool = False
