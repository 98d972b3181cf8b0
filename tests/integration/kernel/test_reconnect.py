"""Clients that go away and return under the same `session_id`, as jupyter_server's do, against the real host.

Plan
- What the kernel sent meanwhile comes first, whole and in order, in either framing: output, reply, the end.
- A question that was asked meanwhile can be answered; a restart is told.
- Nobody else gets it: another session, no session, another kernel of the same name.
- It is bounded: of too much the end is kept, and a message says how much is missing and where; so it does for a client
  that was cut off because it did not read, and for one that was not waited for because too many left later.
- A second connection of a session takes over from the first. Too many connections are refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host, Refused, until
from tests.integration.kernel.jupyter import connect, of_type, printed

from carrel_kernel.clients import AWAY_BYTES, MAX_AWAY, MAX_CLIENTS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """One host for all tests of this module."""
    async with Host.running(tmp_path_factory.mktemp("host"), "--preload=", "--spare-kernels=2") as host:
        await host.bind()
        yield host


_numbers = itertools.count()


@pytest_asyncio.fixture(loop_scope="module")
async def kernel(host: Host) -> AsyncIterator[str]:
    """A kernel of the test's own."""
    name = f"k{next(_numbers)}"
    await host.call("POST", "/v1/kernels", json={"id": name})
    yield name
    await host.call("DELETE", f"/v1/kernels/{name}")


async def nobody_there(host: Host) -> bool:
    return (await host.state())["connections"] == 0


async def leave_behind(host: Host, kernel: str, code: str, *, session: str | None = "mine", v1: bool = True) -> str:
    """Execute code that begins when its client has gone, wait until it has ended, and return the request's id."""
    go = host.workspace / f"go-{next(_numbers)}"
    async with connect(host, kernel=kernel, session=session, v1=v1) as client:
        waiting = f"import pathlib, time\nprint('up')\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        request = await client.send("execute_request", {"code": waiting + code, "allow_stdin": True})
        await client.until("stream", request)
    await until(lambda: nobody_there(host))
    go.touch()
    return request


async def ended(host: Host, kernel: str) -> None:
    async def idle() -> bool:
        return (await host.call("GET", f"/v1/kernels/{kernel}"))["execution_state"] == "idle"

    await until(idle)


@pytest.mark.parametrize(("before", "after"), [(True, True), (False, False), (True, False)])
async def test_what_came_meanwhile_comes_on_return(host: Host, kernel: str, before: bool, after: bool) -> None:
    request = await leave_behind(host, kernel, "for n in range(100): display(n)\nprint('end')\n'result'", v1=before)
    await ended(host, kernel)
    async with connect(host, kernel=kernel, session="mine", v1=after, wait=False) as client:
        messages = await client.results(request)
        shown = [content["data"]["text/plain"] for content in of_type(messages, "display_data")]
        assert shown == [str(number) for number in range(100)]
        assert printed(messages).endswith("end\n")
        assert of_type(messages, "execute_result")
        assert printed(messages, "stderr") == ""
        assert printed(await client.execute("print('on')")) == "on\n"


async def test_a_question_that_was_asked_meanwhile_can_be_answered(host: Host, kernel: str) -> None:
    request = await leave_behind(host, kernel, "print(input('name? '))")
    async with connect(host, kernel=kernel, session="mine", wait=False) as client:
        question, _ = await client.until("input_request", request)
        assert question["content"]["prompt"] == "name? "
        await client.send("input_reply", {"value": "carrel"}, "stdin")
        assert printed(await client.results(request)) == "carrel\n"


async def test_a_restart_meanwhile_is_told(host: Host, kernel: str) -> None:
    request = await leave_behind(host, kernel, "while True: time.sleep(0.01)")
    await host.call("POST", f"/v1/kernels/{kernel}/restart")
    async with connect(host, kernel=kernel, session="mine", wait=False) as client:
        _, before = await client.until_that(lambda message: message["content"].get("execution_state") == "restarting")
        assert not of_type(before, "execute_reply")
        (error,) = of_type(await client.execute("pathlib"), "error")
        assert error["ename"] == "NameError"
        assert request


async def test_nobody_else_gets_it(host: Host, kernel: str) -> None:
    request = await leave_behind(host, kernel, "print('for one alone')")
    await ended(host, kernel)
    for session in ("another", None):
        async with connect(host, kernel=kernel, session=session) as client:
            last = await client.send("kernel_info_request", {})
            _, before = await client.until("kernel_info_reply", last)
            assert request not in {message["parent_header"].get("msg_id") for message in before}
    await host.call("DELETE", f"/v1/kernels/{kernel}")
    await host.call("POST", "/v1/kernels", json={"id": kernel})
    async with connect(host, kernel=kernel, session="mine") as client:
        _, before = await client.until("kernel_info_reply", await client.send("kernel_info_request", {}))
        assert request not in {message["parent_header"].get("msg_id") for message in before}


async def test_a_client_without_a_session_is_not_waited_for(host: Host, kernel: str) -> None:
    request = await leave_behind(host, kernel, "print('for nobody')", session=None)
    await ended(host, kernel)
    async with connect(host, kernel=kernel) as client:
        _, before = await client.until("kernel_info_reply", await client.send("kernel_info_request", {}))
        assert request not in {message["parent_header"].get("msg_id") for message in before}


async def test_of_too_much_the_end_is_kept_and_the_gap_is_told(host: Host, kernel: str) -> None:
    lines, line = 3 * AWAY_BYTES // 1_000_000, "x" * 999_990
    code = f"for n in range({lines}):\n    print(f'{{n:09}}', end='{line}\\n', flush=True)\n'result'"
    request = await leave_behind(host, kernel, code)
    await ended(host, kernel)
    async with connect(host, kernel=kernel, session="mine", wait=False) as client:
        gap, *_ = messages = await client.results(request)
        told = re.fullmatch(r"\[(\d+) messages of the kernel \((\d+) bytes\) are missing here: nobody took them\]\n",
                            gap["content"]["text"])  # fmt: skip
        assert told, gap["content"]
        kept = len(printed(messages))
        assert AWAY_BYTES // 2 < kept <= AWAY_BYTES
        assert int(told[2]) + kept > lines * 1_000_000
        assert printed(messages).rstrip("\n").endswith("x" * 999_990)
        assert of_type(messages, "execute_result")


async def test_a_client_that_was_cut_off_is_told_what_it_missed(host: Host, kernel: str) -> None:
    async with connect(host, kernel=kernel, session="mine"):  # connected, and then it reads nothing more
        text = "x" * 1_000_000
        await host.run(f"for n in range(110): print('{text}', flush=True)\nprint('end')", kernel=kernel)
    async with connect(host, kernel=kernel, session="mine", wait=False) as client:
        gap, _ = await client.until("stream")
        assert "messages of the kernel" in gap["content"]["text"]


async def test_who_was_not_waited_for_is_told(host: Host, kernel: str) -> None:
    for number in range(MAX_AWAY + 1):
        async with connect(host, kernel=kernel, session=f"s{number}"):
            pass
        await until(lambda: nobody_there(host))
    await host.run("print('meanwhile')", kernel=kernel)
    async with connect(host, kernel=kernel, session="s0", wait=False) as forgotten:
        gap, _ = await forgotten.until("stream")
        assert "missing here" in gap["content"]["text"]
        async with connect(host, kernel=kernel, session="s1", wait=False) as kept:
            stream, _ = await kept.until("stream")
            assert stream["content"]["text"] == "meanwhile\n"


async def test_a_second_connection_takes_over(host: Host, kernel: str) -> None:
    async with connect(host, kernel=kernel, session="mine") as first:
        request = await first.send("execute_request", {"code": "input('who? ')", "allow_stdin": True})
        await first.until("input_request", request)
        async with connect(host, kernel=kernel, session="mine", wait=False) as second:
            assert await first.closed() == 1000
            await second.send("input_reply", {"value": "the second"}, "stdin")
            (result,) = of_type(await second.results(request), "execute_result")
            assert result["data"]["text/plain"] == "'the second'"
            assert (await host.state())["connections"] == 1


async def test_of_too_many_clients_the_last_is_refused(host: Host, kernel: str) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MAX_CLIENTS - 1):
            await stack.enter_async_context(connect(host, kernel=kernel, wait=False))
        async with connect(host, kernel=kernel):
            with pytest.raises(Refused) as refused:
                await host.call("GET", f"/v1/kernels/{kernel}/channels")
            assert (refused.value.status, refused.value.code) == (429, "too_many_clients")

        async def room() -> bool:
            return (await host.state())["connections"] == MAX_CLIENTS - 1

        await until(room)
        async with connect(host, kernel=kernel) as client:
            assert printed(await client.execute("print('on')")) == "on\n"


async def test_an_endless_session_id_is_refused(host: Host) -> None:
    with pytest.raises(Refused) as refused:
        await host.call("GET", "/v1/kernels/main/channels", params={"session_id": "x" * 129})
    assert (refused.value.status, refused.value.code) == (400, "bad_request")
