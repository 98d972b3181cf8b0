"""Code for a hostile kernel: cells with it speak the kernel's side of the wire themselves, with the right key."""

from __future__ import annotations

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
