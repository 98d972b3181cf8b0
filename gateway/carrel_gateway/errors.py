"""Everything that can go wrong in the gateway, as one tree; each class is one `code` of the HTTP API.

::

    CarrelError
    ├── NotYet                 202   nothing is wrong: it goes on, and takes longer than a request shall wait
    ├── InvalidInput           400   what was sent cannot be used
    ├── Unauthenticated        401   no key, or one that is not known
    ├── PermissionDenied       403   known, and not allowed
    ├── NotFound               404   not there, or another tenant's
    ├── Conflict               409   not in this state
    │   ├── SessionBusy        409   a run is going on
    │   ├── StaleRun           409   another gateway has taken the run over
    │   └── StaleJob           409   another gateway has taken the job
    ├── PreconditionFailed     412   it is not as the caller has seen it
    ├── TooLarge               413   over a limit of size
    ├── KeyReused              422   the idempotency key belongs to another request
    ├── TooMany                429   over a limit of number or rate
    ├── ModelFailed            502   the model's provider did not answer as it should
    └── Unavailable            503   a part that is needed is away; try again
        ├── ExecutorFailed     503   no kernel could be had
        └── KernelLost         503   the kernel host went away in the middle of a call

Messages are for the caller: they say what happened and what to do, and hold no secret and no path of the server.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CarrelError(Exception):
    """Base of all errors that reach a caller."""

    status: ClassVar[int] = 500
    code: str = "internal"
    retry_after_seconds: int | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry_after_seconds: int | None = None,
        **detail: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        if code:
            self.code = code
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds


class NotYet(CarrelError):
    status = 202
    code = "not_yet"
    retry_after_seconds = 2


class InvalidInput(CarrelError):
    status = 400
    code = "invalid_input"


class Unauthenticated(CarrelError):
    status = 401
    code = "unauthenticated"


class PermissionDenied(CarrelError):
    status = 403
    code = "permission_denied"


class NotFound(CarrelError):
    status = 404
    code = "not_found"


class Conflict(CarrelError):
    status = 409
    code = "conflict"


class SessionBusy(Conflict):
    code = "busy"


class StaleRun(Conflict):
    code = "stale_run"


class StaleJob(Conflict):
    code = "stale_job"


class PreconditionFailed(CarrelError):
    status = 412
    code = "precondition_failed"


class TooLarge(CarrelError):
    status = 413
    code = "too_large"


class KeyReused(CarrelError):
    status = 422
    code = "idempotency_key_reused"


class TooMany(CarrelError):
    status = 429
    code = "too_many"
    retry_after_seconds = 1


class ModelFailed(CarrelError):
    status = 502
    code = "model_failed"


class Unavailable(CarrelError):
    status = 503
    code = "unavailable"
    retry_after_seconds = 5


class ExecutorFailed(Unavailable):
    code = "executor_failed"


class KernelLost(Unavailable):
    code = "kernel_lost"
    retry_after_seconds = 1
