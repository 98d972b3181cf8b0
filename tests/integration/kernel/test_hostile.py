"""A kernel that lies to its host with the right key, and others that have not got it.

Plan
- Wrong types in every field of every kind of message, on every channel: counted, told by no defect, and the cell, other
  kernels and the host go on.
- Forged parents: of a finished execution, of one that waits, of another kernel's that runs. None of them gets an event
  or an end that is not its own.
- Frames that are no messages, are unsigned, signed otherwise, or sent before: dropped, each of them counted.
- A flood of small messages with a parent each, and bombs of values, depth and size: the host's memory grows by less
  than 64 MiB, and it answers others meanwhile. (The full million is in `tests/soak`.)
- A kernel that says nothing any more, or that it works for somebody who is not there: its cells end by their time
  limit.
- Other processes at a kernel's sockets: without a key, with another one, with recorded messages, as another user.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from tests.integration.kernel.host import Host, until
from tests.integration.kernel.hostile import (
    PRELUDE,
    WRONG_TYPES,
    check_no_defects,
    flooded,
    second_kernel,
    watching,
)

from carrel_wire.events import Display, ExecutionEvent, Finished, Started, Stdout

MIB = 1024 * 1024


def texts(events: list[ExecutionEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Stdout))


def status(events: list[ExecutionEvent]) -> str:
    assert isinstance(events[-1], Finished), events
    return events[-1].status


async def malformed(host: Host) -> int:
    async with host.request("GET", "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return int(float(next(line for line in lines if line.startswith("carrel_kernel_malformed")).split()[1]))


async def test_wrong_types_in_every_field(host: Host) -> None:
    await second_kernel(host)
    async with watching(host):
        events = await host.run(PRELUDE + WRONG_TYPES + "\nprint('end')")
    assert status(events) == "ok", events[-1]
    assert texts(events).endswith("end\n")
    sent = int(texts(events).rpartition("sent ")[2].split()[0])
    assert 500 < await malformed(host) < sent
    assert await host.text("print('on')") == "on\n"
    check_no_defects(host)


FORGE = """
for victim, theirs in VICTIMS:
    for parent in ({"msg_id": victim, "session": theirs}, {"msg_id": victim, "session": me["session"]}):
        publish([frames(kind, content, parent) for kind, content in (
            ("status", {"execution_state": "busy"}),
            ("stream", {"name": "stdout", "text": "forged"}),
            ("display_data", {"data": {"text/plain": "forged"}}),
            ("error", {"ename": "Forged", "evalue": "", "traceback": []}),
            ("execute_reply", {"status": "error", "ename": "Forged", "execution_count": -5}),
            ("status", {"execution_state": "idle"}),
        )])
        for socket in (app.shell_socket, app.control_socket):
            for to in (theirs, me["session"]):
                reply(frames("execute_reply", {"status": "ok", "execution_count": 7}, parent), to, socket)
open(".told", "w").close()
"""


async def test_forged_parents_reach_no_other_execution(host: Host) -> None:
    await second_kernel(host)
    waiting = "import os, time\nwhile not os.path.exists('.go'): time.sleep(0.02)\nprint('mine')"
    before = await host.run("print('done')", execution="before")
    theirs = (await host.text(PRELUDE + "print(me['session'])", kernel="second")).strip()
    victim = asyncio.create_task(host.run(waiting, kernel="second", execution="victim"))
    await until(lambda: _runs(host, "second", "victim"), what="the victim")
    victims = f"VICTIMS = [(name, {theirs!r}) for name in ('before', 'later', 'victim')]"
    ready = "import time\nwhile not os.path.exists('.ready'): time.sleep(0.02)"
    code = f"{PRELUDE}\n{victims}\n{ready}\n{FORGE}\n{waiting}"
    hostile = asyncio.create_task(host.run(code, execution="hostile"))
    await until(lambda: _runs(host, "main", "hostile"), what="the hostile cell")
    later = asyncio.create_task(host.run("print('later')", execution="later"))
    await until(lambda: _waits(host, "later"), what="one that waits")
    (host.workspace / ".ready").touch()
    await until((host.workspace / ".told").exists, what="the forgeries")
    assert await _runs(host, "second", "victim")
    assert await _runs(host, "main", "hostile")
    assert not victim.done()
    assert not later.done()
    (host.workspace / ".go").touch()
    for task, text in ((victim, "mine\n"), (later, "later\n")):
        events = await task
        assert [type(event) for event in events] == [Started, Stdout, Finished]
        assert (texts(events), status(events)) == (text, "ok")
    assert status(await hostile) == "ok"
    assert await host.events("GET", "/v1/kernels/main/executions/before/events") == before
    check_no_defects(host)


async def _runs(host: Host, kernel: str, execution: str) -> bool:
    info = await host.call("GET", f"/v1/kernels/{kernel}")
    return info["current_execution"] == execution


async def _waits(host: Host, execution: str) -> bool:
    return any(each["id"] == execution for each in (await host.state())["unacknowledged"])


async def test_a_cell_that_forges_its_own_end_ends_no_other(host: Host) -> None:
    forge = """
reply(frames("execute_reply", {"status": "ok", "execution_count": 1}))
publish([frames("status", {"execution_state": "idle"})])
import time
while not os.path.exists(".go"): time.sleep(0.02)
"""
    first = await host.run(PRELUDE + forge, execution="first")
    assert status(first) == "ok"
    second = asyncio.create_task(host.run("print('second')", execution="second"))
    await until(lambda: _runs(host, "main", "second"), what="the second cell")
    assert not second.done()
    (host.workspace / ".go").touch()
    events = await second
    assert status(events) == "ok"
    assert texts(events).endswith("second\n")
    assert await host.events("GET", "/v1/kernels/main/executions/first/events") == first


async def test_frames_that_are_no_messages_are_dropped_and_counted(host: Host) -> None:
    await host.text("print('ready')")
    before = await malformed(host)
    code = (
        PRELUDE
        + """
said = frames("stream", {"name": "stdout", "text": "once"})
other = type(session)(key=b"another key")
bad = [
    [b"x"], [b"t", DELIMITER], [DELIMITER], [DELIMITER, b"s", b"{}"], [b""] * 1000, [DELIMITER] * 1000,
    frames("stream", {"name": "stdout", "text": "no"}, signature=b"0" * 64),
    frames("stream", {"name": "stdout", "text": "no"}, signature=b"\\xff"),
    [DELIMITER, b"", *said[2:]], [DELIMITER, said[1].upper(), *said[2:]], [DELIMITER, said[1], *said[3:], b"{}"],
    [*said[:-1], said[-1].replace(b"once", b"nope")], [DELIMITER, other.sign(said[2:]), *said[2:]],
    *[said, [b"topic", *said]] * 500,
]
publish([said, *bad])
print("sent", len(bad))
"""
    )
    events = await host.run(code)
    assert status(events) == "ok"
    assert texts(events) == "oncesent 1013\n"
    assert await malformed(host) - before == 1013
    check_no_defects(host)


async def test_a_flood_of_small_messages_starves_nobody(host: Host) -> None:
    await second_kernel(host)
    async with watching(host) as watch:
        events = await flooded(host, 20_000, seed=7)
    assert status(events) == "ok", events[-1]
    assert texts(events).endswith("end\n")
    assert sum(isinstance(event, Display) for event in events) > 500
    assert watch.growth < 64 * MIB, watch.growth
    check_no_defects(host)


BOMBS = {
    "values": "b'[' + b'[],' * 300_000 + b'1]'",
    "objects": "b'{\"a\":' + b'[{\"b\":{}},' * 100_000 + b'1'",
    "values that are not quite JSON": "b'[\"\\xff\",' + b'[],' * 300_000 + b'1]'",
    "depth": "b'[' * 500_000 + b']' * 500_000",
    "digits": "b'[' + b'9' * 500_000 + b']'",
    "quotes": "b'[\"' + b'\\\\\\\\\",' * 300_000",
    "ids": "json.dumps({'msg_id': 'x' * 1_000_000, 'session': me['session']}).encode()",
    "names": "b'{' + b'\"a\":1,' * 300_000 + b'\"b\":1}'",
}
"""JSON as code of the kernel's."""


EXPLODE = """
publish([
    frames("display_data", b'{"data":{"application/json":' + bomb + b"}}"),
    frames("stream", b'{"name":"stdout","text":' + bomb + b"}"),
    frames("execute_input", bomb),
    frames("stream", {"name": "stdout", "text": ""}, header=bomb, parent=bomb),
])
reply(frames("execute_reply", b'{"status":' + bomb + b"}", {"msg_id": "elsewhere"}))
print("end")
"""


@pytest.mark.parametrize("bomb", BOMBS)
async def test_bombs_starve_nobody(host: Host, bomb: str) -> None:
    await second_kernel(host)
    code = f"{PRELUDE}\nbomb = {BOMBS[bomb]}\n{EXPLODE}"
    async with watching(host) as watch:
        events = await host.run(code)
    assert status(events) == "ok", events[-1]
    assert texts(events) == "end\n"
    assert watch.growth < 64 * MIB, watch.growth
    check_no_defects(host)


MUTE = """
from ipykernel.kernelbase import Kernel
Kernel._publish_status = lambda *args, **kwargs: None
Kernel._publish_status_and_flush = lambda *args, **kwargs: None
Kernel._send_abort_reply = lambda *args, **kwargs: None
"""


@pytest.mark.parametrize(
    "claim", ["", 'publish([frames("status", {"execution_state": "busy"}, {"msg_id": "nobody"})])']
)
async def test_cells_of_a_kernel_that_says_nothing_end_by_their_time_limit(host: Host, claim: str) -> None:
    await host.run(f"{PRELUDE}\n{claim}\n{MUTE}")
    events = await host.run("import time\ntime.sleep(600)", timeout_seconds=1)
    assert status(events) == "timeout", events[-1]
    assert await host.text("print('on')", timeout_seconds=60) == "on\n"


# ---------------------------------------------------------------------- others at a kernel's sockets


INTRUDER = """
import glob, json, os, sys, uuid
import zmq
from jupyter_client.session import Session

context = zmq.Context()

def knock(address, frames):
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect("ipc://" + address)
    socket.send_multipart(frames)
    answered = socket.poll(500)
    socket.close()
    return bool(answered)

def request(key):
    session = Session(key=key)
    message = session.msg("execute_request", {"code": "open('intruded', 'w').close()", "silent": False})
    return [bytes(part) for part in map(bytes, session.serialize(message))]
"""


async def shell_address(host: Host) -> str:
    """Return the path of the socket to which requests go."""
    text = await host.text(PRELUDE + "import zmq\nprint(app.shell_socket.getsockopt_string(zmq.LAST_ENDPOINT))")
    return text.strip().removeprefix("ipc://")


async def test_without_the_key_nobody_is_heard(host: Host) -> None:
    """From another kernel of the same user, which sees the sockets; with a good key it is heard, so that it counts."""
    await second_kernel(host)
    key = (await host.text("print(get_ipython().kernel.session.key.decode())")).strip()
    address = await shell_address(host)
    code = f"""{INTRUDER}
address, key = {address!r}, {key.encode()!r}
unsigned = request(b"")
good = request(key)
forged = [good[0], good[1], *(part.replace(b"intruded", b"forged") for part in good[2:])]
print(json.dumps({{
    "unsigned": knock(address, unsigned), "another key": knock(address, request(b"another")),
    "forged": knock(address, forged), "no message": knock(address, [b"x"]),
    "good": knock(address, good), "played again": knock(address, good),
}}))
"""
    events = await host.run(code, kernel="second")
    assert status(events) == "ok", events
    heard = json.loads(texts(events))
    assert heard == {
        **dict.fromkeys(("unsigned", "another key", "forged", "no message", "played again"), False),
        "good": True,
    }
    assert (host.workspace / "intruded").exists()
    assert not (host.workspace / "forged").exists()
    assert await host.text("print('on')") == "on\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_does_not_reach_the_sockets(unprivileged: Host) -> None:
    host = unprivileged
    address = await shell_address(host)
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({address!r})"
    for user, ended in ((host.user, 0), (65533, 1)):
        assert user is not None
        command = [*host.drop_rights(user), sys.executable, "-c", connect]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert done.returncode == ended, done.stderr
        assert ("PermissionError" in done.stderr) == bool(ended)
