"""A person at work while parts of the product die, who writes down what was acknowledged and checks it at the end.

Over the HTTP API alone, so it is the same for child processes and for pods. Every cell has an id of the caller's and
appends its mark to a file and to a variable; a request without an answer is sent again with the same id. Now and then
the session is suspended, and the next cell resumes it. What must hold whatever died:

* the log has no gap, no number twice, and one end for each execution;
* no mark is in the file twice: no code ran twice;
* what was acknowledged as `ok` is `ok` in the log; its mark is in the file, where files outlive the kernel;
* the variable holds the marks of the cells before, also after a suspension, unless the log says that it was lost;
* every question that was accepted has one `run.finished`, and its answer if that succeeded; those that waited for the
  end of another one's run begin once each, in the order in which they came;
* the session still works.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

CSV = "region,revenue\n" + "".join(f"{region},{value}\n" for region in ("north", "south") for value in range(20))
QUESTION = "average revenue by region"
CELL = """
import time
with open("marks.txt", "a") as marks:
    marks.write("{mark}\\n")
known = [*globals().get("known", []), "{mark}"]
print("{mark}", len(known), flush=True)
time.sleep({seconds})
"""
RETRY_SECONDS = 0.2
ANSWER_SECONDS = 180.0
"""A gateway, a pod and a lease of a run are all replaced well within this."""
TRANSIENT = frozenset({409, 429, 502, 503, 504})
"""What a caller may try again after; everything else is a defect."""


@dataclass
class Witness:
    """One person with one session."""

    client: httpx.AsyncClient
    session_id: str
    files_outlive_kernels: bool
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Status by mark."""
    questions: int = 0
    suspensions: int = 0
    trouble: Counter[str] = field(default_factory=Counter[str])
    """Answers after which the witness tried again, by kind."""

    @classmethod
    async def arrive(cls, client: httpx.AsyncClient, *, files_outlive_kernels: bool) -> Witness:
        """Make a session and upload a table."""
        reply = await client.post("/api/sessions", json={"title": "soak"})
        assert reply.status_code == 201, reply.text
        witness = cls(client, reply.json()["id"], files_outlive_kernels)
        stored = await client.post(f"{witness.path}/files", files={"file": ("sales.csv", CSV, "text/csv")})
        assert stored.status_code == 201, stored.text
        return witness

    @property
    def path(self) -> str:
        return f"/api/sessions/{self.session_id}"

    async def work(self, stop: asyncio.Event, chance: random.Random) -> None:
        """Run cells, and now and then ask a question or suspend the session, until told to stop."""
        while not stop.is_set():
            choice = chance.random()
            if choice < 0.1:
                await self.ask()
            elif choice < 0.15:
                await self.suspend()
            else:
                await self.run_cell(chance.choice((0.0, 0.05, 0.5)))

    async def run_cell(self, seconds: float) -> None:
        """Run a cell with a new id and mark, and see it through."""
        execution_id, mark = str(uuid4()), f"m{len(self.acknowledged)}-{uuid4().hex[:8]}"
        body = {"code": CELL.format(mark=mark, seconds=seconds), "execution_id": execution_id}
        outcome = await self._answered("POST", f"{self.path}/kernel/execute", body)
        self.acknowledged[mark] = outcome["status"]

    async def ask(self) -> None:
        """Ask, and count the question when the product took it."""
        try:
            reply = await self.client.post(
                f"{self.path}/chat", params={"queue": "true"}, json={"message": QUESTION}, timeout=ANSWER_SECONDS
            )
        except httpx.TransportError as error:
            self.trouble[type(error).__name__] += 1
            await asyncio.sleep(RETRY_SECONDS)  # asking again would be another question
            return
        if reply.status_code == 200:
            self.questions += 1
        else:
            self._note(reply)

    async def suspend(self) -> None:
        """Suspend the session if that is possible just now."""
        try:
            reply = await self.client.post(f"{self.path}/suspend", timeout=ANSWER_SECONDS)
        except httpx.TransportError as error:
            self.trouble[type(error).__name__] += 1
            return
        if reply.status_code == 200:
            self.suspensions += 1
        else:
            self._note(reply)

    async def verify(self) -> list[dict[str, Any]]:
        """Check everything, and return the log."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while (await self._answered("GET", f"{self.path}/kernel", None))["status"] == "busy":  # noqa: ASYNC110  asked over HTTP
                await asyncio.sleep(RETRY_SECONDS)
        marks = await self._marks()
        assert max(marks.values(), default=1) == 1, "a cell ran twice"
        events = await self._settled()
        ends = self._ends(events)
        statuses = {
            mark: ends[event["payload"]["execution_id"]]
            for event in events
            if event["type"] == "cell.intended" and (mark := _mark_in(event["payload"]["code"]))
        }
        for mark, status in self.acknowledged.items():
            logged = statuses[mark]
            assert logged == status or {logged, status} == {"outcome_unknown", "kernel_died"}, (mark, logged, status)
            if status == "ok" and self.files_outlive_kernels:
                assert marks[mark] == 1, f"{mark} was acknowledged and left no trace"
        check_state(events)
        runs = Counter(event["payload"]["run_id"] for event in events if event["type"] == "run.finished")
        assert max(runs.values(), default=1) == 1
        waited = [event["payload"]["run_id"] for event in events if event["type"] == "message.queued"]
        begun = [event["payload"]["run_id"] for event in events if event["type"] == "run.started"]
        assert [run_id for run_id in begun if run_id in waited] == waited
        assert len(runs) >= self.questions
        answers = {event["payload"]["run_id"] for event in events if event["type"] == "message.assistant"}
        succeeded = {
            event["payload"]["run_id"]
            for event in events
            if event["type"] == "run.finished" and event["payload"]["status"] == "succeeded"
        }
        assert succeeded <= answers
        return events

    async def leave(self) -> None:
        """Delete the session."""
        reply = await self.client.delete(self.path)
        assert reply.status_code in (200, 404), reply.text

    async def events(self) -> list[dict[str, Any]]:
        """Return the log, and check its numbers."""
        found: list[dict[str, Any]] = []
        while page := (await self._answered("GET", f"{self.path}/events?limit=500&after={len(found)}", None))["items"]:
            found += page
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1)), "a gap, or a number twice"
        return found

    async def _settled(self) -> list[dict[str, Any]]:
        """Return the log when every run and every execution in it has its end."""
        events: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while _open_ends(events := await self.events()):  # noqa: ASYNC110  asked over HTTP
                    await asyncio.sleep(1)
        except TimeoutError:
            raise AssertionError(f"without an end: {_open_ends(events)}") from None
        return events

    async def _marks(self) -> Counter[str]:
        code = "import os; print(open('marks.txt').read() if os.path.exists('marks.txt') else '')"
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                body = {"code": code, "execution_id": str(uuid4())}
                cell = await self._answered("POST", f"{self.path}/kernel/execute", body)
                if cell["status"] == "ok":
                    text = "".join("".join(output["text"]) for output in cell["outputs"])
                    return Counter(text.split())

    async def _answered(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Return the answer to a request that is safe to repeat, repeated until there is one."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                try:
                    reply = await self.client.request(method, path, json=body, timeout=ANSWER_SECONDS)
                except httpx.TransportError as error:
                    self.trouble[type(error).__name__] += 1
                else:
                    if reply.status_code == 200:
                        return reply.json()
                    self._note(reply)
                await asyncio.sleep(RETRY_SECONDS)

    def _note(self, reply: httpx.Response) -> None:
        assert reply.status_code in TRANSIENT, f"{reply.status_code} {reply.text}"
        self.trouble[f"{reply.status_code} {reply.json()['code']}"] += 1

    @staticmethod
    def _ends(events: list[dict[str, Any]]) -> dict[str, str]:
        finished = [event["payload"] for event in events if event["type"] == "cell.finished"]
        ends = {payload["execution_id"]: payload["status"] for payload in finished}
        assert len(ends) == len(finished), "an execution ended twice"
        return ends


def _open_ends(events: list[dict[str, Any]]) -> set[str]:
    """Return runs and executions that began in the log and did not end."""
    begun = {event["payload"]["execution_id"] for event in events if event["type"] == "cell.intended"}
    begun |= {event["payload"]["run_id"] for event in events if event["type"] in {"run.started", "message.queued"}}
    ended = {event["payload"]["execution_id"] for event in events if event["type"] == "cell.finished"}
    ended |= {event["payload"]["run_id"] for event in events if event["type"] == "run.finished"}
    return begun - ended


def check_state(events: list[dict[str, Any]]) -> None:
    """Check that each cell found what the cells before it had left, or that the log says why not.

    A loss may be told after the next cell, and before the recovered output of the one before it. A session that was
    recovered has what there was up to an event, and says which.
    """
    lost = [
        (event["seq"], event["payload"].get("as_of_seq", 0))
        for event in events
        if event["type"] == "session.recovered"
        or (event["type"] == "kernel.changed" and event["payload"].get("lost_state"))
    ]
    begun = {event["payload"]["execution_id"]: event["seq"] for event in events if event["type"] == "cell.intended"}
    counts = [
        (begun[event["payload"]["execution_id"]], event["seq"], int(count))
        for event in events
        if event["type"] == "cell.outputs"
        for output in event["payload"]["outputs"]
        for count in re.findall(r"^m\d+-\w+ (\d+)$", "".join(output.get("text", "")), re.MULTILINE)
    ]
    end = (0, len(events) + 1, 0)
    for before, now, later in zip(counts, counts[1:], [*counts[2:], end], strict=False):
        told = any(before[0] < seq < later[1] and kept < before[1] for seq, kept in lost)
        between = [_line(event) for event in events if before[0] <= event["seq"] <= later[1]]
        assert now[2] > before[2] or told, "\n".join(
            [f"variables were lost without a word between {before[1]} and {now[1]}", *between]
        )


def _line(event: dict[str, Any]) -> str:
    """Return an event in one line, for whoever has to find out what happened."""
    return f"{event['seq']} {event['created_at']} {event['type']} {str(event['payload'])[:200]}"


def _mark_in(code: str) -> str | None:
    found = re.search(r'print\("(m\d+-\w+)"', code)
    return found.group(1) if found else None
