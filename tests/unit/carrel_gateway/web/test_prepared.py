"""Routes that are prepared answer as FastAPI's own do, whatever they are sent.

Plan: the same functions are routes twice, prepared and not. Each request, right or wrong, gets the same status and the
same body from both, and reaches the function with the same values. What asks for more than can be prepared is left to
FastAPI. A prepared route never walks through FastAPI's dependencies unless something is wrong.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from carrel_gateway.web.bearer import Bearer
from carrel_gateway.web.prepared import prepared
from carrel_gateway.web.replies import JsonReply


class PreparedRoute(APIRoute):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        app = prepared(self.dependant, lambda handle: handle, self.app)
        self.is_prepared = app is not None
        self.app = app or self.app


class Body(BaseModel):
    code: str = Field(max_length=5)
    seconds: float | None = None


async def _caller(connection: HTTPConnection) -> str:
    return connection.headers.get("authorization", "nobody")


Caller = Annotated[str, Depends(Bearer(_caller))]


async def read(
    place: UUID,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before_id: UUID | None = None,
    kind: Literal["a", "b"] = "a",
    wanted_by: Annotated[str, Header(max_length=8)] = "all",
) -> JsonReply:
    return JsonReply([str(place), caller, limit, str(before_id), kind, wanted_by])


async def write(place: UUID, body: Body, caller: Caller, key: Annotated[str | None, Header()] = None) -> Response:
    return JsonReply([str(place), body.model_dump(), caller, key])


def application(route_class: type[APIRoute]) -> FastAPI:
    router = APIRouter(route_class=route_class)
    router.get("/{place}")(read)
    router.post("/{place}")(write)
    app = FastAPI()
    app.router.routes += router.routes
    return app


PLACE = "01997bb0-0000-7000-8000-000000000001"
JSON = {"content-type": "application/json"}
READS: list[tuple[str, dict[str, str]]] = [
    (f"/{PLACE}", {}),
    (f"/{PLACE}", {"authorization": "Bearer x", "wanted-by": "me"}),
    (f"/{PLACE}?limit=7&kind=b&before_id={PLACE}", {}),
    (f"/{PLACE}?limit=7&limit=8", {}),
    (f"/{PLACE}?limit=0", {}),
    (f"/{PLACE}?limit=", {}),
    (f"/{PLACE}?limit=7.5&kind=c&before_id=x", {}),
    (f"/{PLACE}?unknown=1", {}),
    (f"/{PLACE}", {"wanted-by": "far too long"}),
    ("/no-uuid", {}),
    ("/no-uuid?limit=900", {"wanted-by": "far too long"}),
]
WRITES: list[tuple[bytes, dict[str, str]]] = [
    (b'{"code": "1+1"}', JSON),
    (b'{"code": "1+1", "seconds": 2, "more": 3}', {**JSON, "key": "k", "authorization": "Bearer x"}),
    (b'{"code": "\xc3\xa4"}', {"content-type": "application/json; charset=utf-8"}),
    (b'{"code": "1+1"}', {"content-type": "application/vnd.carrel+json"}),
    (b'{"code": "1+1"}', {"content-type": "text/plain"}),
    (b'{"code": "1+1"}', {}),
    (b'{"code": "1+1", "seconds": NaN}', JSON),
    (b'{"code": "1+1", "seconds": 100000000000000000000000000}', JSON),
    (b'{"code": "far too long"}', JSON),
    (b'{"code": "1+1", "code": "2"}', JSON),
    (b'{"code": 1, "seconds": "x"}', JSON),
    (b'{"code":', JSON),
    (b"\xff\xfe", JSON),
    (b"null", JSON),
    (b"[]", JSON),
    (b"", JSON),
    (b"", {}),
]


async def _both(method: str, path: str, headers: dict[str, str], content: bytes = b"") -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for route_class in (APIRoute, PreparedRoute):
        transport = httpx.ASGITransport(application(route_class))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            reply = await client.request(method, path, headers=headers, content=content)
            found.append((reply.status_code, reply.content))
    return found


@pytest.mark.parametrize(("path", "headers"), READS)
async def test_a_read_is_answered_as_by_fastapi(path: str, headers: dict[str, str]):
    usual, prepared_one = await _both("GET", path, headers)
    assert prepared_one == usual
    assert usual[0] in {200, 422}


@pytest.mark.parametrize(("content", "headers"), WRITES)
async def test_a_body_is_taken_as_by_fastapi(content: bytes, headers: dict[str, str]):
    usual, prepared_one = await _both("POST", f"/{PLACE}?x=1", headers, content)
    assert prepared_one == usual
    assert usual[0] in {200, 400, 422}


async def test_a_right_request_takes_no_walk_through_dependencies(monkeypatch: pytest.MonkeyPatch):
    walks: list[str] = []

    async def walk(*, request: Request, **_: Any) -> Any:
        walks.append(request.url.path)
        raise NotImplementedError

    app = application(PreparedRoute)
    monkeypatch.setattr("fastapi.routing.solve_dependencies", walk)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get(f"/{PLACE}?limit=7")).json()[2] == 7
        assert (await client.post(f"/{PLACE}", json={"code": "1"})).status_code == 200
        assert walks == []
        with pytest.raises(NotImplementedError):
            await client.get("/no-uuid")
    assert walks == ["/no-uuid"]


async def _nested(caller: Caller) -> str:
    return caller


async def _closed() -> Any:
    yield "closed"


async def plain() -> JsonReply: ...
async def model() -> Body: ...
async def nested(value: Annotated[str, Depends(_nested)]) -> JsonReply: ...
async def closing(value: Annotated[str, Depends(_closed)]) -> JsonReply: ...
async def many(values: Annotated[list[str], Query()]) -> JsonReply: ...
async def as_model(values: Annotated[Body, Query()]) -> JsonReply: ...
async def crumb(value: Annotated[str, Cookie()]) -> JsonReply: ...
async def headed(response: Response) -> JsonReply: ...
async def optional(body: Body | None = None) -> JsonReply: ...
async def two(body: Body, other: Body) -> JsonReply: ...
def threaded() -> JsonReply: ...


@pytest.mark.parametrize(
    ("function", "is_prepared"),
    [
        (plain, True),
        *((each, False) for each in (model, nested, closing, many, as_model, crumb, headed, optional, two, threaded)),
    ],
)
def test_what_asks_for_more_is_left_to_fastapi(function: Any, is_prepared: bool):
    route = PreparedRoute("/", function, methods=["POST"], response_model=None)
    assert route.is_prepared is is_prepared
