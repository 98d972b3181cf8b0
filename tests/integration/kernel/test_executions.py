"""Executions against the real host: what they emit, at most once, reading on, and acknowledgement.

Plan
- Events: order, numbers without gaps, streams kept apart, results, displays with their ids, clear, errors.
- At most once: an id that comes again, even with other code, at the same time, or after its end, runs nothing.
- Reading on: a cut connection cancels nothing; events are read on from any number; several readers see the same.
- Acknowledgement: frees events, remembers the id, and refuses to run it again.
- A stream is answered though there are no events yet.
- Queue: one at a time in order; a failure stops what waits behind it, unless it said otherwise; its bound.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host, Refused, until

from carrel_wire.events import Clear, Display, Error, Finished, Result, Started, Stderr, Stdout
from carrel_wire.host import ACKNOWLEDGED_HEADER

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def host(lasting: Host) -> AsyncIterator[Host]:
    yield lasting
    await lasting.clean()


async def test_events_come_in_the_kernels_order_and_are_numbered_without_gaps(host: Host) -> None:
    events = await host.run("import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')\n1+1")
    assert [type(event) for event in events] == [Started, Stdout, Stderr, Stdout, Result, Finished]
    assert [event.n for event in events] == [1, 2, 3, 4, 5, 6]
    result, finished = events[-2], events[-1]
    assert isinstance(result, Result)
    assert result.data == {"text/plain": "2"}
    assert isinstance(finished, Finished)
    assert finished.status == "ok"
    assert finished.execution_count == result.execution_count == 1
    assert finished.peak_memory_bytes
    assert finished.peak_memory_bytes > 10_000_000


async def test_displays_keep_their_ids_and_updates(host: Host) -> None:
    events = await host.run(
        "from IPython.display import display, clear_output, HTML\n"
        "h = display(HTML('<b>1</b>'), display_id='x', metadata={'k': 1})\n"
        "h.update(HTML('<b>2</b>'))\nclear_output(wait=True)"
    )
    first, second = (event for event in events if isinstance(event, Display))
    assert first.data["text/html"] == "<b>1</b>"
    assert (first.display_id, first.update, first.metadata) == ("x", False, {"k": 1})
    assert (second.display_id, second.update, second.data["text/html"]) == ("x", True, "<b>2</b>")
    assert [event.wait for event in events if isinstance(event, Clear)] == [True]


async def test_an_error_names_itself(host: Host) -> None:
    events = await host.run("1/0")
    (error,) = (event for event in events if isinstance(event, Error))
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert any("line 1" in line for line in error.traceback)
    assert isinstance(events[-1], Finished)
    assert events[-1].status == "error"


async def test_what_waits_in_the_queue_is_answered_before_it_has_events(host: Host) -> None:
    wait = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    path = "/v1/kernels/main/executions/"
    async with (
        host.request("PUT", f"{path}holds-up", json={"code": wait}) as first,
        host.request("PUT", f"{path}is-held-up", json={"code": "1"}) as behind,
    ):
        assert (first.status, behind.status) == (200, 200)
        (host.workspace / "go").touch()
        assert b'"finished"' in await behind.read()


async def test_a_repeated_id_runs_nothing(host: Host) -> None:
    id_ = str(uuid.uuid4())
    await host.run("count = 0")
    first = await host.run("count += 1; print(count)", execution=id_)
    again = await host.run("raise SystemExit", execution=id_)
    assert again == first
    both = await asyncio.gather(*(host.run("count += 1", execution="twice") for _ in range(10)))
    assert all(events == both[0] for events in both)
    assert await host.text("print(count)") == "2\n"


async def test_a_cut_connection_cancels_nothing_and_is_read_on(host: Host) -> None:
    code = "import os, time\nprint('one', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('two')"
    seen = await host.run(code, execution="cut", until_type="stdout")
    assert [type(event) for event in seen] == [Started, Stdout]
    attached = asyncio.create_task(host.run(code, execution="cut"))
    (host.workspace / "go").touch()
    rest = await host.events("GET", f"/v1/kernels/main/executions/cut/events?after={seen[-1].n}")
    assert isinstance(rest[0], Stdout)
    assert rest[0].text == "two\n"
    assert isinstance(rest[-1], Finished)
    assert await attached == [*seen, *rest]


async def test_acknowledgement_frees_and_remembers(fresh: Host) -> None:
    events = await fresh.run("print('x')", execution="a1")
    with pytest.raises(Refused) as refused:
        await fresh.ack("a1", 99)
    assert (refused.value.status, refused.value.code) == (400, "bad_request")
    assert (await fresh.ack("a1", 1))["acknowledged"] is False
    assert [item["id"] for item in (await fresh.state())["unacknowledged"]] == ["a1"]
    for _ in range(2):  # it may be said twice
        assert await fresh.ack("a1", events[-1].n) == {"id": "a1", "status": "ok", "acknowledged": True}
    assert (await fresh.state())["unacknowledged"] == []
    assert list((fresh.workspace / ".carrel" / "spool").iterdir()) == []
    with pytest.raises(Refused) as refused:
        await fresh.run("print('again')", execution="a1")
    assert (refused.value.status, refused.value.code) == (409, "already_acknowledged")
    assert refused.value.detail == {"id": "a1", "status": "ok", "acknowledged": True}
    with pytest.raises(Refused) as refused:
        await fresh.events("GET", "/v1/kernels/main/executions/a1/events")
    assert (refused.value.status, refused.value.code) == (410, "events_released")


async def test_acknowledgement_with_the_next_code(fresh: Host) -> None:
    first, second = [len(await fresh.run("print('x')", execution=id_)) for id_ in ("a1", "a2")]
    path = "/v1/kernels/main/executions/a3"

    async def put(value: str) -> tuple[int, str | None]:
        async with fresh.request("PUT", path, json={"code": "1"}, headers={ACKNOWLEDGED_HEADER: value}) as reply:
            await reply.read()
            return reply.status, reply.headers.get(ACKNOWLEDGED_HEADER)

    for wrong in ("", "a1", "a1=", "=1", "a1=-1", "a1=1,", "a1=1;a2=2", "a1=" + "1" * 16):
        assert await put(wrong) == (400, None)
    assert [item["id"] for item in (await fresh.state())["unacknowledged"]] == ["a1", "a2"], "and nothing has run"
    # What cannot be acknowledged (no such execution, no such event) is no reason not to run the code.
    said = f"a1={first},none=3,a2={second + 1}"
    assert await put(said) == (200, said)
    assert [item["id"] for item in (await fresh.state())["unacknowledged"]] == ["a2", "a3"]


async def test_events_that_were_acknowledged_are_released_by_segments(host: Host) -> None:
    events = await host.run("for _ in range(40): print('x' * 100_000)", execution="big")
    await host.ack("big", events[-2].n)
    with pytest.raises(Refused) as refused:
        await host.events("GET", "/v1/kernels/main/executions/big/events?after=0")
    assert (refused.value.status, refused.value.code) == (410, "events_released")
    last = await host.events("GET", f"/v1/kernels/main/executions/big/events?after={events[-2].n}")
    assert last == [events[-1]]


async def test_unknown_ids_say_what_is_unknown(host: Host) -> None:
    for path, code in (
        ("/v1/kernels/main/executions/none/events", "execution_not_found"),
        ("/v1/kernels/none/executions/none/events", "kernel_not_found"),
        ("/v1/kernels/none", "kernel_not_found"),
    ):
        with pytest.raises(Refused) as refused:
            await host.call("GET", path)
        assert (refused.value.status, refused.value.code) == (404, code)
    for kernel, code in (("main", "execution_not_found"), ("none", "kernel_not_found")):
        with pytest.raises(Refused) as refused:
            await host.ack("none", 1, kernel=kernel)
        assert (refused.value.status, refused.value.code) == (404, code)
    with pytest.raises(Refused) as refused:
        await host.run("1", kernel="none")
    assert (refused.value.status, refused.value.code) == (404, "kernel_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"code": 1}',
        b'{"code": "1", "timeout_seconds": 0}',
        b'{"code": "1", "timeout_seconds": -1}',
        b'{"code": "1", "unknown": 1}',
        b'{"code": "\\ud800"}',
    ],
)
async def test_a_bad_request_is_refused_and_nothing_runs(host: Host, body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        await host.call("PUT", "/v1/kernels/main/executions/bad", data=body)
    assert (refused.value.status, refused.value.code) == (400, "bad_request")
    with pytest.raises(Refused) as refused:
        await host.events("GET", "/v1/kernels/main/executions/bad/events")
    assert refused.value.code == "execution_not_found"


async def test_a_bad_execution_id_is_refused(host: Host) -> None:
    for bad in ("%2e%2e", "a%20b", "x" * 65, "-a", "%00"):
        with pytest.raises(Refused) as refused:
            await host.call("PUT", f"/v1/kernels/main/executions/{bad}", json={"code": "1"})
        assert refused.value.status in (400, 404)


async def test_what_waits_behind_a_failure_is_not_run(host: Host) -> None:
    await host.run("done = []")
    hold = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    failing = asyncio.create_task(host.outcome(hold + "1/0", execution="failing"))
    await until(lambda: _current(host, "failing"))
    waiting = asyncio.create_task(host.outcome("done.append(1)", execution="waiting"))
    await until(lambda: _known(host, "waiting"))
    (host.workspace / "go").touch()
    assert (await failing).status == "error"
    finished = await waiting
    assert finished.status == "interrupted"
    assert finished.message
    assert "not run" in finished.message
    assert await host.text("print(done)") == "[]\n"


async def test_what_waits_is_run_when_the_failure_did_not_stop_on_error(host: Host) -> None:
    hold = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    failing = asyncio.create_task(host.outcome(hold + "1/0", execution="fails", stop_on_error=False))
    await until(lambda: _current(host, "fails"))
    waiting = asyncio.create_task(host.text("print('ran')", execution="waits"))
    await until(lambda: _known(host, "waits"))
    (host.workspace / "go").touch()
    assert (await failing).status == "error"
    assert await waiting == "ran\n"


async def test_the_queue_is_bounded(tmp_path) -> None:
    async with Host.running(tmp_path, "--max-queue=2") as host:
        await host.bind()
        running = asyncio.create_task(host.outcome("import time\nwhile True: time.sleep(0.01)", execution="first"))
        await until(lambda: _current(host, "first"))
        waiting = [asyncio.create_task(host.outcome("1", execution=f"w{number}")) for number in range(2)]
        await until(lambda: _known(host, "w1"))
        with pytest.raises(Refused) as refused:
            await host.run("1", execution="w2")
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        await host.call("POST", "/v1/kernels/main/interrupt")
        assert [(await task).status for task in (running, *waiting)] == ["interrupted"] * 3
        assert (await host.outcome("1", execution="w2")).status == "ok"  # a refused id has not run


async def test_unacknowledged_executions_are_bounded(tmp_path) -> None:
    async with Host.running(tmp_path, "--max-unacknowledged=2") as host:
        await host.bind()
        for number in range(2):
            await host.run("1", execution=f"e{number}")
        with pytest.raises(Refused) as refused:
            await host.run("1")
        assert (refused.value.status, refused.value.code) == (507, "spool_full")
        await host.ack("e0", 3)
        assert (await host.outcome("1")).status == "ok"


async def test_silent_code_leaves_no_trace(host: Host) -> None:
    await host.run("a = 1")
    finished = await host.outcome("a = 2", silent=True)
    assert finished.status == "ok"
    assert (await host.main())["execution_count"] == 1
    assert await host.text("print(a)") == "2\n"


async def test_input_is_refused_at_once(host: Host) -> None:
    events = await host.run("input('name? ')")
    assert [event.name for event in events if isinstance(event, Error)] == ["StdinNotImplementedError"]


async def test_a_request_for_another_incarnation_is_refused(host: Host) -> None:
    incarnation = (await host.main())["incarnation"]
    assert (await host.outcome("1", incarnation=incarnation)).status == "ok"
    with pytest.raises(Refused) as refused:
        await host.run("1", execution="other", incarnation="gone")
    assert (refused.value.status, refused.value.code) == (409, "incarnation_changed")
    assert refused.value.detail == {"incarnation": incarnation}


async def _current(host: Host, execution: str) -> bool:
    return (await host.main())["current_execution"] == execution


async def _known(host: Host, execution: str) -> bool:
    return execution in [item["id"] for item in (await host.state())["unacknowledged"]]
