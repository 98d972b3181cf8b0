"""Every feature of the Jupyter protocol through the host's WebSocket, on kernels of their own in one real host.

Plan
- stdin: `input()` and `getpass` in both framings; of two clients only the one that executed is asked.
- Comms: a widget opens, is changed from both sides and echoes; binary buffers in both directions, byte for byte.
- The debugger: attach, a breakpoint, the `stopped` event, variables, going on.
- Subshells: made, used while the main shell runs, listed, deleted; kernel_info names them.
- Completion, documentation, history, completeness, comms that are open: on shell, and where allowed on control.
- Interrupt and shutdown by message; a kernel that shuts down is told, and takes the next request in a new process.
- Control and subshells beside a running cell do not make the kernel look idle.
- Plotly and Vega bundles, `display_id` updates and clear_output come unchanged, through executions too.
- What older clients send: no channel, no buffers, dates that are numbers.
- All clients see all output, in one order. A deleted kernel closes its clients.
- Unknown kernels are 404 on every route, the handshake too. The host pings; its sockets do not wait to fill packets.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.integration.kernel.host import Host, until
from tests.integration.kernel.jupyter import V1, Client, connect, of_type, printed

from carrel_kernel.channels import HEARTBEAT_SECONDS
from carrel_kernel.program import _listen
from carrel_kernel.server import ROUTES
from carrel_wire.events import Clear, Display, Result

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = pytest.mark.parametrize("v1", [True, False], ids=["v1", "legacy"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """One host for all tests of this module."""
    async with Host.running(tmp_path_factory.mktemp("host"), "--preload=ipywidgets", "--spare-kernels=2") as host:
        await host.bind()
        yield host


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def ping(host: Host) -> AsyncIterator[asyncio.Task[None]]:
    """The first ping to a client that says nothing, which comes while the other tests run."""

    async def wait() -> None:
        assert host.http
        url, headers = "http://host/v1/kernels/main/channels", {"Authorization": f"Bearer {host.token(['execute'])}"}
        async with host.http.ws_connect(url, headers=headers, autoping=False) as socket:
            while (await socket.receive()).type != aiohttp.WSMsgType.PING:
                pass

    task = asyncio.create_task(wait())
    yield task
    task.cancel()


_numbers = itertools.count()


@pytest_asyncio.fixture(loop_scope="module")
async def kernel(host: Host) -> AsyncIterator[str]:
    """A kernel of the test's own."""
    name = f"k{next(_numbers)}"
    await host.call("POST", "/v1/kernels", json={"id": name})
    yield name
    await host.call("DELETE", f"/v1/kernels/{name}")


async def state(host: Host, kernel: str) -> str:
    return (await host.call("GET", f"/v1/kernels/{kernel}"))["execution_state"]


# ---------------------------------------------------------------------- stdin


@BOTH
async def test_only_the_client_that_executes_is_asked_for_input(host: Host, kernel: str, v1: bool) -> None:
    async with connect(host, kernel=kernel, v1=v1) as asked, connect(host, kernel=kernel) as other:
        code = "import getpass\nprint(input('name? '), getpass.getpass('word? '))"
        request = await asked.send("execute_request", {"code": code, "allow_stdin": True})
        for prompt, password, answer in (("name? ", False, "carrel"), ("word? ", True, "secret")):
            question, _ = await asked.until("input_request", request)
            assert question["channel"] == "stdin"
            assert question["content"] == {"prompt": prompt, "password": password}
            await asked.send("input_reply", {"value": answer}, "stdin")
        assert printed(await asked.results(request)) == "carrel secret\n"
        last = await other.send("execute_request", {"code": "1"})
        _, before = await other.until_that(
            lambda message: (
                message["parent_header"].get("msg_id") == last and message["content"].get("execution_state") == "idle"
            )
        )
        assert printed(before) == "carrel secret\n"
        assert not of_type(before, "input_request")


async def test_input_without_a_client_that_can_answer_is_an_error(host: Host, kernel: str) -> None:
    async with connect(host, kernel=kernel) as client:
        (error,) = of_type(await client.execute("input()", allow_stdin=False), "error")
        assert error["ename"] == "StdinNotImplementedError"


# ---------------------------------------------------------------------- comms


@BOTH
async def test_a_widget_lives(host: Host, kernel: str, v1: bool) -> None:
    picture, other = bytes(range(256)) * 40, b"\x00\xff" * 5000
    async with connect(host, kernel=kernel, v1=v1) as client:
        code = (
            f"import ipywidgets\nw = ipywidgets.Image(value={picture!r})\ns = ipywidgets.IntSlider(value=3)\ndisplay(s)"
        )
        messages = await client.execute(code)
        opened = {message["content"]["data"]["state"]["_model_name"]: message for message in messages
                  if message["msg_type"] == "comm_open"}  # fmt: skip
        image = opened["ImageModel"]
        assert image["content"]["data"]["buffer_paths"] == [["value"]]
        assert image["buffers"] == [picture]
        slider = opened["IntSliderModel"]["content"]["comm_id"]
        (shown,) = of_type(messages, "display_data")
        assert shown["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == slider

        def update(comm: str, changed: dict[str, Any], paths: list[list[str]]) -> dict[str, Any]:
            return {"comm_id": comm, "data": {"method": "update", "state": changed, "buffer_paths": paths}}

        await client.send("comm_msg", update(slider, {"value": 7}, []))
        echo, _ = await client.until("comm_msg")
        assert echo["content"]["data"]["method"] == "echo_update"
        assert echo["content"]["data"]["state"] == {"value": 7}
        await client.send("comm_msg", update(image["content"]["comm_id"], {}, [["value"]]), buffers=(other,))
        assert printed(await client.execute(f"print(s.value, w.value == {other!r})")) == "7 True\n"
        changed = [message for message in await client.execute(f"w.value = {picture[::-1]!r}")
                   if message["msg_type"] == "comm_msg"]  # fmt: skip
        assert changed[0]["content"]["comm_id"] == image["content"]["comm_id"]
        assert changed[0]["buffers"] == [picture[::-1]]
        comms = await client.ask("comm_info_request", {})
        assert slider in comms["comms"]
        (closed, *_) = of_type(await client.execute("w.close()"), "comm_close")
        assert closed["comm_id"] == image["content"]["comm_id"]


# ---------------------------------------------------------------------- debugger


@BOTH
async def test_the_debugger_stops_and_goes_on(host: Host, kernel: str, v1: bool) -> None:
    numbers = itertools.count(1)

    async with connect(host, kernel=kernel, v1=v1) as client:

        async def debug(command: str, **arguments: Any) -> dict[str, Any]:
            content = {"type": "request", "seq": next(numbers), "command": command, "arguments": arguments}
            reply = await client.ask("debug_request", content, "control")
            assert reply["success"], reply
            return reply.get("body", {})

        assert "debugger" in (await client.ask("kernel_info_request", {}))["supported_features"]
        await debug(
            "initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True, columnsStartAt1=True
        )
        await debug("attach")
        code = "def double(n):\n    result = 2 * n\n    return result\nprint(double(21))"
        path = (await debug("dumpCell", code=code))["sourcePath"]
        (point,) = (await debug("setBreakpoints", source={"path": path}, breakpoints=[{"line": 3}]))["breakpoints"]
        assert point["verified"]
        await debug("configurationDone")
        request = await client.send("execute_request", {"code": code})
        stopped, _ = await client.until_that(
            lambda message: message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped"
        )
        assert stopped["channel"] == "iopub"
        thread = stopped["content"]["body"]["threadId"]
        (frame, *_) = (await debug("stackTrace", threadId=thread))["stackFrames"]
        assert (frame["name"], frame["line"]) == ("double", 3)
        (scope, *_) = (await debug("scopes", frameId=frame["id"]))["scopes"]
        variables = await debug("variables", variablesReference=scope["variablesReference"])
        assert {item["name"]: item["value"] for item in variables["variables"]} == {"n": "21", "result": "42"}
        assert await state(host, kernel) == "busy"
        going_on = {"type": "request", "seq": next(numbers), "command": "continue", "arguments": {"threadId": thread}}
        await client.send("debug_request", going_on, "control")  # its reply may come after the cell's end
        assert printed(await client.results(request)) == "42\n"
        await debug("disconnect", restart=False, terminateDebuggee=False)


# ---------------------------------------------------------------------- subshells

OWN_PARTS = """
import ipykernel.ipkernel
kernel = get_ipython().kernel
manager = kernel.shell_channel_thread.manager
pairs = manager.get_shell_channel_to_subshell_pair(None), manager.get_subshell_to_shell_channel_socket(None)
print(*(type(part).__name__ for part in (kernel.session, kernel.iopub_thread, *pairs)))
print(kernel._transforming._transform.__name__, ipykernel.ipkernel._accepts_parameters.__module__)
"""


OWN = "KernelSession OutputThread Relay Relay\ntransform_cell carrel_kernel.inside.once\n"


async def test_the_kernel_uses_what_stands_for_parts_of_ipykernel(host: Host, kernel: str) -> None:
    """A version of ipykernel that is made otherwise would use its own parts without a word, and take longer."""
    async with connect(host, kernel=kernel) as client:
        assert printed(await client.execute(OWN_PARTS)) == OWN


@BOTH
async def test_a_subshell_works_while_the_main_shell_runs(host: Host, kernel: str, v1: bool) -> None:
    async with connect(host, kernel=kernel, v1=v1) as client:
        assert "kernel subshells" in (await client.ask("kernel_info_request", {}))["supported_features"]
        subshell = (await client.ask("create_subshell_request", {}, "control"))["subshell_id"]
        assert (await client.ask("list_subshell_request", {}, "control"))["subshell_id"] == [subshell]
        code = "import time\ngo_on = False\nprint('up', flush=True)\nwhile not go_on: time.sleep(0.01)"
        running = await client.send("execute_request", {"code": code})
        await client.until("stream", running)
        beside = await client.send("execute_request", {"code": "print('beside')"}, subshell_id=subshell)
        assert printed(await client.results(beside)) == "beside\n"
        question = {"code": "go_o", "cursor_pos": 4}
        assert (await client.ask("complete_request", question, subshell_id=subshell))["matches"] == ["go_on"]
        assert await state(host, kernel) == "busy", "the main shell runs on"
        release = await client.send("execute_request", {"code": "go_on = True"}, subshell_id=subshell)
        await client.until("execute_reply", running)
        await client.ask("delete_subshell_request", {"subshell_id": subshell}, "control")
        assert (await client.ask("list_subshell_request", {}, "control"))["subshell_id"] == []
        assert release != running
        await until(lambda: _is(host, kernel, "idle"))


async def _is(host: Host, kernel: str, wanted: str) -> bool:
    return await state(host, kernel) == wanted


# ---------------------------------------------------------------------- questions


@BOTH
async def test_questions_are_answered(host: Host, kernel: str, v1: bool) -> None:
    async with connect(host, kernel=kernel, v1=v1) as client:
        await client.execute("number = 6 * 7\nnumber", store_history=True)
        await client.execute("number + 1", store_history=True)
        for channel in ("shell", "control"):
            info = await client.ask("kernel_info_request", {}, channel)
            assert (info["implementation"], info["language_info"]["name"]) == ("ipython", "python")
        completion = await client.ask("complete_request", {"code": "1 + numb", "cursor_pos": 8})
        assert completion["matches"] == ["number"]
        assert (completion["cursor_start"], completion["cursor_end"]) == (4, 8)
        found = await client.ask("inspect_request", {"code": "number", "cursor_pos": 6, "detail_level": 0})
        assert found["found"]
        assert "int" in found["data"]["text/plain"]
        for code, status in (("1", "complete"), ("if True:", "incomplete"), ("1 +* 2", "invalid")):
            assert (await client.ask("is_complete_request", {"code": code}))["status"] == status
        past = {"output": False, "raw": True}
        tail = await client.ask("history_request", {**past, "hist_access_type": "tail", "n": 1})
        assert tail["history"] == [[1, 2, "number + 1"]]
        everything = {**past, "output": True, "hist_access_type": "range", "session": 0, "start": 1, "stop": None}
        assert (await client.ask("history_request", everything))["history"] == [
            [1, 1, ["number = 6 * 7\nnumber", "42"]],
            [1, 2, ["number + 1", "43"]],
        ]
        search = {**past, "hist_access_type": "search", "pattern": "*6*", "n": 5}
        assert [line for _, _, line in (await client.ask("history_request", search))["history"]] == [
            "number = 6 * 7\nnumber"
        ]


# ---------------------------------------------------------------------- control


@BOTH
async def test_an_interrupt_by_message(host: Host, kernel: str, v1: bool) -> None:
    async with connect(host, kernel=kernel, v1=v1) as client:
        code = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)"
        # Else IPython refuses, for a moment, what comes after a cell that did not end well.
        request = await client.send("execute_request", {"code": code, "stop_on_error": False})
        await client.until("stream", request)
        await client.ask("kernel_info_request", {}, "control")
        assert await state(host, kernel) == "busy", "an answer on control does not end the cell"
        interrupt = await client.send("interrupt_request", {}, "control")
        ends = {}
        while ends.keys() != {"interrupt_reply", "execute_reply"}:  # on two channels, in either order
            message = await client.receive()
            if message["parent_header"].get("msg_id") in (request, interrupt) and message["channel"] != "iopub":
                ends[message["msg_type"]] = message["content"]
        assert ends["interrupt_reply"]["status"] == "ok"
        assert ends["execute_reply"]["ename"] == "KeyboardInterrupt"
        assert printed(await client.execute("print('on')")) == "on\n"


@pytest.mark.parametrize("restart", [True, False])
async def test_a_shutdown_by_message(host: Host, kernel: str, restart: bool) -> None:
    async with connect(host, kernel=kernel) as client, connect(host, kernel=kernel, v1=False) as other:
        await client.execute("x = 1")
        reply = await client.ask("shutdown_request", {"restart": restart}, "control")
        assert (reply["status"], reply["restart"]) == ("ok", restart)
        for each in (client, other):
            await each.until_that(_restarting)
            (error,) = of_type(await each.execute("x"), "error")
            assert error["ename"] == "NameError"
        assert (await host.call("GET", f"/v1/kernels/{kernel}"))["restarts"] == 1


def _restarting(message: dict[str, Any]) -> bool:
    return message["content"].get("execution_state") == "restarting"


async def test_a_death_is_told_and_the_next_request_is_not_lost(host: Host, kernel: str) -> None:
    async with connect(host, kernel=kernel) as client:
        for _ in range(3):  # also when the kernel is too young to be started again by itself
            await client.send("execute_request", {"code": "import os; os._exit(1)"})
            await client.until_that(_restarting)
            assert printed(await client.execute("print('new')")) == "new\n"


async def test_a_deleted_kernel_closes_its_clients(host: Host) -> None:
    await host.call("POST", "/v1/kernels", json={"id": "short"})
    async with connect(host, kernel="short") as one, connect(host, kernel="short", v1=False, session="s") as two:
        await host.call("DELETE", "/v1/kernels/short")
        assert [await one.closed(), await two.closed()] == [1001, 1001]


# ---------------------------------------------------------------------- outputs

BUNDLES = {
    "application/vnd.plotly.v1+json": {
        "data": [{"type": "scatter", "x": [1, 2.5, -3], "y": [1e300, 0.1, None], "name": "Überblick <b>"}],
        "layout": {"title": {"text": "\u2028 </script> €"}, "nested": [[[{}]]]},
        "config": {"responsive": True},
    },
    "application/vnd.vegalite.v5+json": {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": [{"a": "A", "b": 28}, {"a": "B", "b": 55}]},
        "mark": "bar",
        "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
    },
    "application/vnd.vega.v5+json": {"$schema": "https://vega.github.io/schema/vega/v5.json", "marks": [], "width": 9},
}
SHOW = (
    "import json\nfrom IPython.display import clear_output\n"
    f"bundles = json.loads({json.dumps(BUNDLES)!r})\n"
    "for mime, spec in bundles.items():\n"
    "    display({mime: spec, 'text/plain': mime}, metadata={mime: {'k': 1}}, raw=True)\n"
    "handle = display('first', display_id='shown')\nhandle.update('second')\nclear_output(wait=True)\nclear_output()\n"
    "class Chart:\n    def _repr_mimebundle_(self, **_): return bundles, {'top': {'deep': [1]}}\nChart()"
)


@BOTH
async def test_rich_outputs_come_unchanged_through_channels(host: Host, kernel: str, v1: bool) -> None:
    async with connect(host, kernel=kernel, v1=v1) as client:
        messages = await client.execute(SHOW)
        *shown, first = of_type(messages, "display_data")
        assert [content["data"] for content in shown] == [
            {mime: spec, "text/plain": mime} for mime, spec in BUNDLES.items()
        ]
        assert [content["metadata"] for content in shown] == [{mime: {"k": 1}} for mime in BUNDLES]
        assert (first["data"], first["transient"]) == ({"text/plain": "'first'"}, {"display_id": "shown"})
        (updated,) = of_type(messages, "update_display_data")
        assert (updated["data"], updated["transient"]) == ({"text/plain": "'second'"}, {"display_id": "shown"})
        assert of_type(messages, "clear_output") == [{"wait": True}, {"wait": False}]
        (result,) = of_type(messages, "execute_result")
        assert BUNDLES.items() <= result["data"].items()
        assert result["metadata"] == {"top": {"deep": [1]}}


async def test_rich_outputs_come_unchanged_through_executions(host: Host, kernel: str) -> None:
    events = await host.run(SHOW, kernel=kernel)
    *shown, first, updated = (event for event in events if isinstance(event, Display))
    assert [event.data for event in shown] == [{mime: spec, "text/plain": mime} for mime, spec in BUNDLES.items()]
    assert [event.metadata for event in shown] == [{mime: {"k": 1}} for mime in BUNDLES]
    assert (first.data["text/plain"], first.display_id, first.update) == ("'first'", "shown", False)
    assert (updated.data["text/plain"], updated.display_id, updated.update) == ("'second'", "shown", True)
    assert [event.wait for event in events if isinstance(event, Clear)] == [True, False]
    (result,) = (event for event in events if isinstance(event, Result))
    assert BUNDLES.items() <= result.data.items()
    assert result.metadata == {"top": {"deep": [1]}}


@BOTH
async def test_text_that_is_no_unicode_is_shown(host: Host, kernel: str, v1: bool) -> None:
    async with connect(host, kernel=kernel, v1=v1) as client:
        assert printed(await client.execute("print('\\ud800 on')")) in ("\ud800 on\n", "? on\n")


async def test_all_clients_see_all_output_in_one_order(host: Host, kernel: str) -> None:
    async with connect(host, kernel=kernel) as one, connect(host, kernel=kernel, v1=False) as two:
        code = "import sys\nfor n in range(200):\n    print(n, file=(sys.stdout, sys.stderr)[n % 2])\n    display(n)"
        request = await one.send("execute_request", {"code": code})

        async def seen(client: Client) -> list[Any]:
            _, before = await client.until_that(
                lambda message: (
                    message["parent_header"].get("msg_id") == request
                    and message["content"].get("execution_state") == "idle"
                )
            )
            mine = (message for message in before if message["parent_header"].get("msg_id") == request)
            return [(message["msg_type"], message["content"]) for message in mine if message["channel"] == "iopub"]

        first, second = await seen(one), await seen(two)
        assert first == second
        assert [int(content["data"]["text/plain"]) for kind, content in first if kind == "display_data"] == [
            *range(200)
        ]


# ---------------------------------------------------------------------- older clients


async def test_what_older_clients_leave_out(host: Host, kernel: str) -> None:
    header = {"msg_id": "old-1", "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.0"}
    message = {"header": {**header, "date": 1767225600.25}, "parent_header": {}, "metadata": {}}
    async with connect(host, kernel=kernel, v1=False) as client:
        for number, left_out in enumerate(({}, {"buffers": []}, {"channel": "shell"}, {"parent_header": None})):
            message["header"]["msg_id"] = f"old-{number}"
            content = {"code": f"print({number})"}
            await client.socket.send_str(json.dumps({**message, "content": content, **left_out}))
            assert printed(await client.results(f"old-{number}")) == f"{number}\n"


# ---------------------------------------------------------------------- the surface


async def test_an_unknown_kernel_is_not_found_on_every_route(host: Host) -> None:
    bodies: dict[str, Any] = {"ack": {"n": 1}, "none": {"code": "1"}}  # what is looked at before
    routes = [(method, path) for method, path, _, _ in ROUTES if "{kernel}" in path]
    assert len(routes) > 8
    for method, path in routes:
        address = path.format(kernel="none", execution="none")
        async with host.request(method, address, json=bodies.get(address.rpartition("/")[2], {})) as reply:
            assert (reply.status, (await reply.json())["code"]) == (404, "kernel_not_found"), (method, path)
    for protocols in ((V1,), ()):
        assert host.http
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await host.http.ws_connect(
                "http://host/v1/kernels/none/channels",
                headers={"Authorization": f"Bearer {host.token()}"},
                protocols=protocols,
            )
        assert refused.value.status == 404


async def test_a_tcp_connection_sends_small_packets_at_once() -> None:
    seen: list[int] = []

    async def look(request: web.Request) -> web.Response:
        assert request.transport
        seen.append(request.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", look)
    runner = web.AppRunner(app)
    await runner.setup()
    await _listen(runner, "tcp:127.0.0.1:0")
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as reply:
            assert reply.status == 200
    finally:
        await runner.cleanup()
    assert seen == [1]


async def test_a_silent_client_is_pinged(ping: asyncio.Task[None]) -> None:
    assert HEARTBEAT_SECONDS < 40
    async with asyncio.timeout(HEARTBEAT_SECONDS + 30):
        await ping
