"""A hostile kernel: cells that speak the kernel's side of the wire themselves, and what the host is like meanwhile."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.kernel.host import Host, until

from carrel_wire.events import ExecutionEvent

PRELUDE = r"""
import json, os, random, threading, uuid
from ipykernel.kernelapp import IPKernelApp

app = IPKernelApp.instance()
session, output = app.session, app.iopub_thread
me = {name: app.kernel.get_parent()["header"][name] for name in ("msg_id", "session")}
DELIMITER = b"<IDS|MSG>"

def as_json(part):
    return part if isinstance(part, bytes) else json.dumps(part).encode()

def frames(kind, content, parent=me, header=None, signature=None):
    header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "session": "s"} if header is None else header
    parts = [as_json(part) for part in (header, parent, {}, content)]
    return [DELIMITER, signature or session.sign(parts), *parts]

def in_output_thread(work):
    done, failed = threading.Event(), []
    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)
        done.set()
    output.schedule(run)
    done.wait()
    if failed:
        raise failed[0]

def publish(messages):
    def work():
        for message in messages:
            output.socket.send_multipart(message)
    in_output_thread(work)

def reply(message, to=None, socket=app.shell_socket):
    socket.send_multipart([(to or me["session"]).encode(), *message])
"""
"""`publish` puts frames on the output socket, `reply` on another one; `me` is the header of what runs."""

WRONG_TYPES = r"""
WRONG = [None, True, -1, 2**31, 2**64, 1.5, "", "text", "\ud800", [], [[]], [None], {}, {"a": {"b": 1}}]
RAW = [b"", b"{", b"nul", b"\xff\xfe", b'"\xff"', b"[" * 2000 + b"]" * 2000, b'{"a":' * 500 + b"1" + b"}" * 500,
       b"1" * 400, b"NaN", b"-0", b'{"a":NaN}', b'{"a":' + b"9" * 5000 + b"}", b'{"text":"\xff","name":"stdout"}',
       b'{"a":1}{"b":2}', b'"' + b"x" * 100_000 + b'"']
CONTENTS = {
    "stream": {"name": "stdout", "text": "said"},
    "display_data": {"data": {"text/plain": "shown"}, "metadata": {}, "transient": {"display_id": "d"}},
    "update_display_data": {"data": {"text/plain": "shown"}, "metadata": {}, "transient": {"display_id": "d"}},
    "execute_result": {"data": {"text/plain": "shown"}, "metadata": {}, "execution_count": 1},
    "error": {"ename": "Error", "evalue": "value", "traceback": ["line"]},
    "clear_output": {"wait": False},
    "status": {"execution_state": "busy"},
    "execute_input": {"code": "", "execution_count": 1},
    "execute_reply": {"status": "ok", "execution_count": 1, "user_expressions": {}, "ename": "", "traceback": []},
    "complete_reply": {"status": "ok", "matches": [], "cursor_start": 0, "cursor_end": 0},
    "input_request": {"prompt": "?", "password": False},
    "comm_open": {"comm_id": "c", "target_name": "t", "data": {}},
    "debug_event": {"event": "stopped"},
    "iopub_welcome": {},
    "shutdown_reply": {"restart": True},
    "": {},
}
def variants(content):
    yield content
    yield from WRONG
    yield from RAW
    for field in content:
        yield {name: value for name, value in content.items() if name != field}
        for wrong in WRONG:
            yield {**content, field: wrong}
        for raw in RAW[:4]:
            yield as_json({**content, field: 12345}).replace(b"12345", raw)

ELSEWHERE = {"msg_id": "no execution", "session": me["session"]}
sent = 0
for kind, content in CONTENTS.items():
    # What ends a cell or says how is about another one; outputs are this cell's own.
    parent = ELSEWHERE if kind in ("status", "execute_reply") else me
    messages = [frames(kind, variant, parent) for variant in variants(content)]
    publish(messages)
    sent += len(messages)
    for message in (frames(kind, variant, parent) for variant in variants(content)):
        reply(message)
        reply(message, socket=app.control_socket)
        sent += 2
for wrong in [*WRONG, *RAW]:
    fields = {"msg_id": "m", "msg_type": "stream", "session": me["session"]}
    headers = [wrong, *({**fields, name: wrong} for name in fields if not isinstance(wrong, bytes))]
    publish([frames("stream", {"name": "stdout", "text": "?"}, header=header) for header in headers])
    publish([frames("stream", {"name": "stdout", "text": "?"}, parent=parent) for parent in headers])
    sent += 2 * len(headers)
print("sent", sent)
"""
"""Every kind of message with every field of every wrong type, without it, and as bytes that are no JSON."""

FLOOD = """
chance = random.Random(SEED)
CONTENTS = [
    ("stream", {"name": "stdout", "text": "x"}), ("stream", {"name": "stderr", "text": ""}),
    ("display_data", {"data": {"text/plain": "x"}, "transient": {"display_id": None}}),
    ("update_display_data", {"data": {}}), ("clear_output", {}), ("status", {"execution_state": "busy"}),
    ("status", {"execution_state": "idle"}), ("execute_input", {"execution_count": -1}), ("comm_msg", {"comm_id": "c"}),
    ("unknown", {}),
]
def flood(count):
    for number in range(count):
        kind, content = chance.choice(CONTENTS)
        if kind.endswith("display_data"):
            content = {**content, "transient": {"display_id": f"id-{number}"}}
        mine = chance.random() < 0.5 and kind != "status"
        parent = {"msg_id": uuid.uuid4().hex, "session": me["session"] if mine else uuid.uuid4().hex}
        yield frames(kind, content, parent)
publish(flood(COUNT))
print("end")
"""

DEFECTS = ("kernel_message_failed", "execution_failed", "request_failed", "Traceback")


async def second_kernel(host: Host) -> None:
    await host.call("POST", "/v1/kernels", json={"id": "second"})
    assert await host.text("print('ready')", kernel="second") == "ready\n"


def check_no_defects(host: Host) -> None:
    log = host.log.read_text()
    assert not [defect for defect in DEFECTS if defect in log], log


class Watch:
    """What the host's memory and its answers to others were like meanwhile."""

    def __init__(self) -> None:
        self.growth = 0
        self.answers = 0


@asynccontextmanager
async def watching(host: Host) -> AsyncIterator[Watch]:
    """Ask the host for its state and a second kernel for a sum, again and again; each within a deadline."""
    assert host.process
    statm = Path(f"/proc/{host.process.pid}/statm")
    watch, over = Watch(), asyncio.Event()

    def resident() -> int:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()

    async def measure() -> None:
        while not over.is_set():
            watch.growth = max(watch.growth, resident() - before)
            await asyncio.sleep(0.005)

    async def ask() -> None:
        while not over.is_set():
            execution = str(uuid.uuid4())
            async with asyncio.timeout(20):
                assert (await host.state())["session_uid"]
                assert await host.text("print(1 + 1)", kernel="second", execution=execution) == "2\n"
                await host.ack(execution, 3, kernel="second")
            watch.answers += 1
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        group.create_task(measure())
        group.create_task(ask())
        try:
            yield watch
            await until(lambda: watch.answers, what="an answer")
        finally:
            over.set()


async def flooded(host: Host, count: int, *, seed: int) -> list[ExecutionEvent]:
    """Let a kernel send so many small messages, each about something else."""
    execution = str(uuid.uuid4())
    events = await host.run(f"{PRELUDE}\nSEED, COUNT = {seed}, {count}\n{FLOOD}", execution=execution)
    await host.ack(execution, events[-1].n)
    return events
