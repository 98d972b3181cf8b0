"""What goes around every request: one that the end of the process cuts is answered, unless its answer has begun."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.support.local import settings_for

from carrel_gateway.web.middleware import Envelope

SCOPE = {"type": "http", "method": "GET", "path": "/slow", "headers": [(b"host", b"localhost")]}
BEGUN = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("begins", [False, True])
async def test_a_request_that_the_end_of_the_process_cuts(tmp_path, begins):
    reached, sent = asyncio.Event(), []

    async def app(_scope, _receive, send):
        if begins:
            await send(dict(BEGUN))
        reached.set()
        await asyncio.Event().wait()

    async def admit(_scope):
        return True

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    envelope = Envelope(app, settings=settings_for(tmp_path), admit=admit)
    request = asyncio.create_task(envelope(dict(SCOPE), receive, send))
    await reached.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert [message["type"] for message in sent] == (
        ["http.response.start"] if begins else ["http.response.start", "http.response.body"]
    )
    if not begins:
        assert sent[0]["status"] == 503
        assert (b"retry-after", b"1") in sent[0]["headers"]
        assert json.loads(sent[1]["body"])["code"] == "unavailable"
