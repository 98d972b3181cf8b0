"""The SDK: Carrel's HTTP API as Python, with a synchronous and an asynchronous face.

::

    from carrel_client import Client

    with Client("http://localhost:8000", api_key="crl_…") as carrel:
        session = carrel.create_session(title="Sales")
        carrel.upload(session.id, ["sales.csv"])
        for event in carrel.stream_chat(session.id, "Which region sells most?"):
            print(event.type, event.payload)

It knows nothing of the server but its HTTP API, and holds no state beside the connection pool.
"""

from __future__ import annotations

from carrel_client._async_client import AsyncClient
from carrel_client._client import Client
from carrel_client._errors import ApiProblem, CarrelClientError, ConnectionFailed, LoginEnded, UnexpectedReply
from carrel_client._login import InMemory, LoginStore
from carrel_client._models import Artifact, ChatResult, Event, Execution, Key, Login, Session

__all__ = [
    "ApiProblem",
    "Artifact",
    "AsyncClient",
    "CarrelClientError",
    "ChatResult",
    "Client",
    "ConnectionFailed",
    "Event",
    "Execution",
    "InMemory",
    "Key",
    "Login",
    "LoginEnded",
    "LoginStore",
    "Session",
    "UnexpectedReply",
]
