"""The errors of the kernel host, each with its HTTP status and stable code.

HostError
├── BadRequest 400 ── PathRefused, ArchiveRefused, WrongDigest
├── Unauthenticated 401
├── Forbidden 403 ── ScopeMissing, WrongSession, SnapshotRefused
├── NotFound 404 ── KernelNotFound, ExecutionNotFound, FileNotFound, BlobNotFound
├── Conflict 409 ── Unbound, AlreadyBound, WrongHost, KernelExists, KernelBusy, IncarnationChanged,
│                   OtherKernel, AlreadyAcknowledged, FolderExists, BlobsMissing, KernelChanged,
│                   Sealed
├── EventsReleased 410
├── TooLarge 413
├── RangeNotSatisfiable 416
├── QueueFull 429 ── TooManyKernels, TooManyClients
├── KernelUnavailable 503
├── DeadlineExceeded 504
├── NoSpace 507 ── SpoolFull, DiskFull
└── RefusedByServer ── what the HTTP server refuses before a route sees it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HostError(Exception):
    """Something the caller is told; the message says what to do."""

    status: int = 500
    code: str = "internal"
    headers: Mapping[str, str] = {}
    """What the reply says beside its body."""

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class BadRequest(HostError):
    status = 400
    code = "bad_request"


class PathRefused(BadRequest):
    code = "path_refused"


class ArchiveRefused(BadRequest):
    """`reason` is one of malformed, unsupported, encrypted, link, special, name, duplicate; `entry` names a member."""

    code = "archive_refused"

    def __init__(self, message: str, *, reason: str, entry: str | None = None) -> None:
        printable = "".join(character if character.isprintable() else "?" for character in (entry or "")[:200])
        super().__init__(message, reason=reason, **({"entry": printable} if printable else {}))


class WrongDigest(BadRequest):
    code = "wrong_digest"


class Unauthenticated(HostError):
    status = 401
    code = "unauthenticated"


class Forbidden(HostError):
    status = 403
    code = "forbidden"


class ScopeMissing(Forbidden):
    code = "scope_missing"


class WrongSession(Forbidden):
    code = "wrong_session"


class SnapshotRefused(Forbidden):
    code = "snapshot_refused"


class NotFound(HostError):
    status = 404
    code = "not_found"


class KernelNotFound(NotFound):
    code = "kernel_not_found"


class ExecutionNotFound(NotFound):
    code = "execution_not_found"


class FileNotFound(NotFound):
    code = "file_not_found"


class BlobNotFound(NotFound):
    code = "blob_not_found"


class Conflict(HostError):
    status = 409
    code = "conflict"


class Unbound(Conflict):
    code = "unbound"


class AlreadyBound(Conflict):
    code = "already_bound"


class WrongHost(Conflict):
    code = "wrong_host"


class KernelExists(Conflict):
    code = "kernel_exists"


class KernelBusy(Conflict):
    code = "kernel_busy"


class IncarnationChanged(Conflict):
    code = "incarnation_changed"


class OtherKernel(Conflict):
    code = "other_kernel"


class AlreadyAcknowledged(Conflict):
    code = "already_acknowledged"


class FolderExists(Conflict):
    code = "folder_exists"


class BlobsMissing(Conflict):
    code = "blobs_missing"


class KernelChanged(Conflict):
    code = "kernel_changed"


class Sealed(Conflict):
    code = "sealed"


class EventsReleased(HostError):
    status = 410
    code = "events_released"


class TooLarge(HostError):
    status = 413
    code = "too_large"


class RangeNotSatisfiable(HostError):
    status = 416
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes; ask for a part of them", size=size)
        self.headers = {"Content-Range": f"bytes */{size}"}


class QueueFull(HostError):
    status = 429
    code = "queue_full"


class TooManyKernels(QueueFull):
    code = "too_many_kernels"


class TooManyClients(QueueFull):
    code = "too_many_clients"


class KernelUnavailable(HostError):
    status = 503
    code = "kernel_unavailable"


class DeadlineExceeded(HostError):
    status = 504
    code = "deadline_exceeded"


class NoSpace(HostError):
    status = 507
    code = "no_space"


class SpoolFull(NoSpace):
    code = "spool_full"


class DiskFull(NoSpace):
    code = "disk_full"


class RefusedByServer(HostError):
    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
