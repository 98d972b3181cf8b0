"""Sends what Schemathesis makes of the OpenAPI document to a gateway in this process.

Each operation gets requests that fit its description and requests that do not, about sessions that are there and about
some that are not. None may be answered by a 5xx, and none by anything that the description does not declare. Code is
not run: the session that kernels are asked for is archived.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.support import contract
from tests.support.inside import Inside, inside

from carrel_gateway.settings import Settings

KEY = "crl_of_the_fuzzer"
SECONDS = 20.0
_OWN_HEADERS = {"authorization", "host", "origin", "content-length", "transfer-encoding", "connection", "cookie"}
"""What the client and the guards before the routes are about; other tests have them."""
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
SCHEMA = schemathesis.openapi.from_dict(contract.document())
OPERATIONS = {f"{found.ok().method.upper()} {found.ok().path}": found.ok() for found in SCHEMA.get_all_operations()}


@dataclass
class Target:
    """A gateway with something in it."""

    gateway: Inside
    session: str
    archived: str
    artifact: str

    def send(self, case: Any, *, known: bool) -> httpx.Response:
        """Send a request; with `known` about what is there."""
        path = dict(case.path_parameters or {})
        if known:
            named = "time" if "/mcp" in case.path else "a.csv"
            here = {"session_id": self._session_for(case), "artifact_id": self.artifact, "name": named}
            path |= {name: here[name] for name in path if name in here}
        case.path_parameters = path
        if case.query and "wait" in case.query:
            case.query["wait"] = 0
        asked = requests.Request(**_without_ours(case.as_transport_kwargs(base_url="http://localhost"))).prepare()
        return self.gateway.call(self._answer, asked)

    def _session_for(self, case: Any) -> str:
        wants_kernel = any(
            part in case.path for part in ("/kernel", "/chat", "/resume", "/suspend", "/fork", "/messages/")
        )
        gone = case.method.upper() == "DELETE" or case.path.endswith("/archive")
        return self.archived if wants_kernel or gone else self.session

    async def _answer(self, asked: requests.PreparedRequest) -> httpx.Response:
        headers = {**dict(asked.headers), "Authorization": f"Bearer {KEY}"}
        sending = self.gateway.client.request(
            str(asked.method), str(asked.url), headers=headers, content=_content(asked.body)
        )
        return await asyncio.wait_for(sending, SECONDS)


def _without_ours(options: dict[str, Any]) -> dict[str, Any]:
    headers = {
        name: value for name, value in (options.get("headers") or {}).items() if name.lower() not in _OWN_HEADERS
    }
    kept = {name: options.get(name) for name in ("method", "url", "params", "data", "json", "files")}
    return {**kept, "headers": headers}


def _content(body: Any) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else bytes(body)


@contextmanager
def target(data_dir: Path) -> Iterator[Target]:
    """Start a gateway with a session, an archived one, an MCP server in each, and a file."""
    own = Settings(
        _env_file=None, data_dir=data_dir, api_key=KEY, spare_kernel_host=False, kernel_preload="", host="127.0.0.1"
    )
    with inside(own) as gateway:
        made = [gateway.request("POST", "/api/sessions", credential=KEY, json={}).json()["id"] for _ in range(2)]
        files = {"file": ("a.csv", b"x\n1\n", "text/csv")}
        session, archived = (f"/api/sessions/{one}" for one in made)
        stored = gateway.request("POST", f"{session}/files", credential=KEY, files=files).json()["items"]
        for one in (session, archived):
            gateway.request("POST", f"{one}/mcp", credential=KEY, json={"template": "time"})
        gateway.request("POST", f"{archived}/archive", credential=KEY)
        yield Target(gateway, *made, artifact=stored[0]["id"])


def fuzz(to: Target, name: str, *, examples: int) -> Counter[int]:
    """Send so many requests of an operation, always the same ones; return how often each status was answered."""
    operation, answered = OPERATIONS[name], Counter[int]()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(), known=st.booleans())
    def one(case: Any, known: bool) -> None:
        response = to.send(case, known=known)
        assert response.status_code < 500, (response.status_code, response.text, case.as_curl_command())
        contract.check(response)
        answered[response.status_code] += 1

    one()
    return answered
