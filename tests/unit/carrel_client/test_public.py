"""The SDK's public names and its two faces.

Plan: the list of names is what it is said to be; both faces have the same methods with the same parameters.
"""

from __future__ import annotations

import inspect

import carrel_client
from carrel_client import AsyncClient, Client


def test_names():
    assert carrel_client.__all__ == [
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
    assert all(hasattr(carrel_client, name) for name in carrel_client.__all__)


def methods(kind):
    return {
        name: list(inspect.signature(member).parameters.items())
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_faces_are_the_same():
    sync, awaited = methods(Client), methods(AsyncClient)
    awaited["close"] = awaited.pop("aclose")
    assert {name: str(value) for name, value in sync.items()} == {name: str(value) for name, value in awaited.items()}
