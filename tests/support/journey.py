"""One person's way through the product, over its HTTP API alone: the same for every executor.

Create a session, upload a CSV, look at it in the kernel, plot it, fetch the plot by a signed address, ask a question in
words, read the history, export the notebook and execute it elsewhere, delete the session. Each step checks what the
person would see; nothing here knows where the kernel runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nbformat
from nbclient import NotebookClient

CSV = "region,month,revenue\n" + "".join(
    f"{region},{month},{base + 10 * month}\n"
    for region, base in (("north", 100), ("south", 200))
    for month in range(1, 7)
)
LOOK = "import pandas as pd\nframe = pd.read_csv('data/sales.csv')\nprint('rows:', len(frame))\nframe"
PLOT = """
import matplotlib.pyplot as plt
ax = frame.groupby('region')['revenue'].sum().plot.bar()
plt.savefig('revenue.png')
frame.groupby('region').revenue.sum().to_csv('totals.csv')
int(frame.revenue.sum())
"""
MEANS = {"north": 135, "south": 235}
TOTAL = sum(int(line.rsplit(",", 1)[1]) for line in CSV.splitlines()[1:])
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
STEP_SECONDS = 120.0
"""For the first cell, which may wait for a pod."""


@dataclass
class Travelled:
    """What the journey left behind, for checks of the caller's own."""

    session_id: str
    executions: list[str] = field(default_factory=list)


async def journey(client: httpx.AsyncClient, elsewhere: Path, session_id: str | None = None) -> Travelled:
    """Go the whole way with a client that has the gateway's address and key; the session stays.

    The notebook is executed in the empty folder `elsewhere`. Without an id a session is made.
    """
    if session_id is None:
        session_id = (await _json(client.post("/api/sessions", json={"title": "Sales"}), 201))["id"]
    way = Travelled(session_id)
    base = f"/api/sessions/{way.session_id}"
    await _upload(client, base)
    await _look(client, base, way)
    await _plot(client, base, way)
    await _fetch_artifacts(client, base)
    await _ask(client, base)
    await _read_history(client, base, way)
    await _export(client, base, elsewhere)
    return way


async def leave(client: httpx.AsyncClient, way: Travelled) -> None:
    """Delete the session; nothing of it can be read afterwards."""
    reply = await client.delete(f"/api/sessions/{way.session_id}", timeout=STEP_SECONDS)
    assert (reply.status_code, reply.json()["complete"]) == (200, True), reply.text
    assert (await client.get(f"/api/sessions/{way.session_id}")).status_code == 404


async def execute(client: httpx.AsyncClient, base: str, code: str, **more: Any) -> dict[str, Any]:
    """Run code and return the reply, which comes after its commit."""
    return await _json(client.post(f"{base}/kernel/execute", json={"code": code, **more}, timeout=STEP_SECONDS))


async def _upload(client: httpx.AsyncClient, base: str) -> None:
    stored = await _json(client.post(f"{base}/files", files={"file": ("sales.csv", CSV, "text/csv")}), 201)
    (item,) = stored["items"]
    assert (item["name"], item["size"], item["category"]) == ("sales.csv", len(CSV), "data")
    assert item["sha256"] == hashlib.sha256(CSV.encode()).hexdigest()
    downloaded = await client.get(f"{base}/files/sales.csv")
    assert downloaded.text == CSV


async def _look(client: httpx.AsyncClient, base: str, way: Travelled) -> None:
    reply = await execute(client, base, LOOK)
    way.executions.append(reply["execution_id"])
    assert reply["status"] == "ok", reply
    stream, result = reply["outputs"]
    assert stream["text"] == "rows: 12\n"
    assert "text/html" in result["data"]
    kernel = await _json(client.get(f"{base}/kernel"))
    assert kernel["status"] == "idle", kernel
    variables = await _json(client.get(f"{base}/kernel/variables"))
    assert "frame" in {variable["name"] for variable in variables["variables"]}


async def _plot(client: httpx.AsyncClient, base: str, way: Travelled) -> None:
    """Run the cell as a stream, as the web app does."""
    types: list[str] = []
    last: dict[str, Any] = {}
    headers = {"Accept": "application/x-ndjson"}
    body = {"code": PLOT}
    async with client.stream(
        "POST", f"{base}/kernel/execute", json=body, headers=headers, timeout=STEP_SECONDS
    ) as reply:
        assert reply.status_code == 200, await reply.aread()
        async for line in reply.aiter_lines():
            if line:
                last = json.loads(line)
                types.append(last["type"])
                if last["type"] == "result":
                    assert last["data"]["text/plain"] == str(TOTAL)
    assert last["status"] == "ok", last
    assert types[0] == "started"
    assert types.count("finished") == 1
    assert {"result", "artifact"} <= set(types)


async def _fetch_artifacts(client: httpx.AsyncClient, base: str) -> None:
    listed = (await _json(client.get(f"{base}/artifacts")))["items"]
    by_name = {item["name"]: item for item in listed}
    assert {"revenue.png", "totals.csv"} <= set(by_name)
    png = await client.get(f"{base}/artifacts/revenue.png")
    assert png.content.startswith(PNG_MAGIC)
    assert hashlib.sha256(png.content).hexdigest() == by_name["revenue.png"]["sha256"]
    same = await client.get(f"/api/artifacts/{by_name['revenue.png']['id']}")
    assert same.content == png.content
    signed = await _json(client.get(f"{base}/artifacts/revenue.png", params={"url": "1"}))
    async with httpx.AsyncClient(base_url=client.base_url) as anybody:  # a browser: it has no key
        assert (await anybody.get(signed["url"])).content == png.content


async def _ask(client: httpx.AsyncClient, base: str) -> None:
    """Ask about the upload in words; the answer has the numbers, which are computed here a second time."""
    question = {"message": "What is the average revenue by region?"}
    outcome = await _json(client.post(f"{base}/chat", json=question, timeout=STEP_SECONDS))
    assert outcome["status"] == "succeeded", outcome
    for region, mean in MEANS.items():
        assert region in outcome["answer"]
        assert f"{mean:g}" in outcome["answer"], outcome["answer"]
    (plot,) = (item["name"] for item in outcome["artifacts"] if item["name"].endswith(".png"))
    assert (await client.get(f"{base}/artifacts/{plot}")).content.startswith(PNG_MAGIC)
    messages = (await _json(client.get(f"{base}/messages")))["items"]
    assert [message["role"] for message in messages] == ["user", "assistant"]


async def _read_history(client: httpx.AsyncClient, base: str, way: Travelled) -> None:
    events = (await _json(client.get(f"{base}/events")))["items"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    finished = [event for event in events if event["type"] == "cell.finished"]
    assert {event["payload"]["status"] for event in finished} == {"ok"}
    assert finished[0]["payload"]["execution_id"] == way.executions[0]
    stored = [event["payload"]["name"] for event in events if event["type"] == "artifact.stored"]
    assert {"revenue.png", "sales.csv", "totals.csv"} < set(stored), "what the agent made is there too"
    assert [event["type"] for event in events].count("run.finished") == 1


async def _export(client: httpx.AsyncClient, base: str, elsewhere: Path) -> None:
    """Export the notebook, and execute it in a plain Jupyter kernel beside the same file."""
    document = await _json(client.get(f"{base}/notebook"))
    notebook = nbformat.from_dict(document)
    nbformat.validate(notebook)
    sources = [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]
    assert LOOK in sources
    assert any("savefig" in source for source in sources)
    (elsewhere / "data").mkdir(parents=True)
    (elsewhere / "data" / "sales.csv").write_text(CSV)
    runner = NotebookClient(notebook, timeout=STEP_SECONDS, resources={"metadata": {"path": str(elsewhere)}})
    await runner.async_execute()
    assert (elsewhere / "revenue.png").stat().st_size


async def _json(request: Any, status: int = 200) -> dict[str, Any]:
    reply = await request
    assert reply.status_code == status, f"{reply.request.method} {reply.request.url}: {reply.status_code} {reply.text}"
    document: dict[str, Any] = reply.json()
    return document
