"""What goes wrong at the operator's edges.

OperatorError
├── ConfigurationError     settings, keys or custom resource definitions are missing or wrong: the process ends
├── LeaseLost              another replica is the leader: the process ends
├── ApiError               the API server answered no
│   ├── ApiNotFound        404
│   ├── ApiConflict        409: exists already, or was changed meanwhile
│   ├── ApiRefused         400, 403, 422: admission, quota, RBAC, validation
│   └── ApiUnavailable     no answer, 401, 429, 5xx: try again
└── HostError              a kernel host
├── HostUnreachable    does not listen, or no answer in time
└── HostRefused        answered with an error
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all of them; the message says what to do and holds no secret."""


class ConfigurationError(OperatorError):
    """Settings, keys or custom resource definitions are missing or wrong."""


class LeaseLost(OperatorError):
    """Another replica is the leader now, or none could be told."""


class ApiError(OperatorError):
    """The API server answered with an error."""


class ApiNotFound(ApiError):
    """The object is not there."""


class ApiConflict(ApiError):
    """The object is there already, or was changed meanwhile."""


class ApiRefused(ApiError):
    """Admission, quota, RBAC or validation refused the request; `refusals` says it in words."""


class ApiUnavailable(ApiError):
    """The API server could not answer now."""


class HostError(OperatorError):
    """A call to a kernel host failed."""


class HostUnreachable(HostError):
    """The kernel host does not listen, or did not answer in time."""


class HostRefused(HostError):
    """The kernel host answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
