"""What a route asks for that only somebody known gets: FastAPI's dependency, and what OpenAPI says of it.

It is one dependency without others of its own: FastAPI walks through those of each one again for every request, which
was a quarter of the cost of a read. Without the import of `annotations`: FastAPI takes those of a callable object as
they stand, and finds no name in them.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

T = TypeVar("T")


class Bearer(SecurityBase, Generic[T]):
    """A dependency on something that is made for whoever presents a credential."""

    def __init__(self, make: Callable[[HTTPConnection], Awaitable[T]]) -> None:
        """Take what lets the caller in, and makes it.

        Parameters
        ----------
        make
            Raises what a caller is to be told who is not let in.
        """
        self.model = HTTPBearer(description="The API key, as `Authorization: Bearer <key>`.")
        self.scheme_name = "HTTPBearer"
        self._make = make

    async def __call__(self, connection: HTTPConnection) -> T:
        """Return it for a request."""
        return await self._make(connection)
