"""Everything that the SDK raises.

::

    CarrelClientError
    ├── ApiProblem         the server answered with a problem (RFC 9457); `code` is stable
    ├── LoginEnded         the login was ended, or not used for too long
    ├── ConnectionFailed   the server cannot be reached, or went away
    └── UnexpectedReply    something answered that is not Carrel
"""

from __future__ import annotations

from typing import Any


class CarrelClientError(Exception):
    """Base of all errors of the SDK."""


class ApiProblem(CarrelClientError):
    """The server refused, and says why."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: float | None = None, document: dict[str, Any]
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Seconds to wait before trying again, when the server says so."""
        self.document = document
        """The whole problem, with members such as `run_id`."""


class LoginEnded(CarrelClientError):
    """The login was ended, or has not been used for too long: log in again."""


class ConnectionFailed(CarrelClientError):
    """No answer, or not the whole of it."""


class UnexpectedReply(CarrelClientError):
    """The answer is none of Carrel's."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, when that is what was unexpected."""
