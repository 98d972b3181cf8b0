"""What a host shows of its isolation: the closed port, and tries to reach somebody; real sockets, the real program.

Plan
- The closed port takes connections and says nothing, over IPv4 and IPv6, four hundred at once, and one that sends; each
  is counted; a host without one has none, and one whose place is taken does not start.
- `reach` tells the four outcomes apart: a listener, a port where nobody listens, one that does not answer (a listener
  whose queue is full), an address that TCP has no way to; over IPv4 and IPv6.
- It is for unbound hosts alone: 409 afterwards; a try that began before may end after. Names and what is out of range
  are refused, and so is a fifth try at once; those that ended make room.
- A try that cannot be made at all (no descriptor left) has no outcome.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kernel.host import Host, Refused, until

from carrel_kernel.reaching import MAX_TRIES, ClosedPort, _outcome


def free_port(family: socket.AddressFamily = socket.AF_INET, address: str = "127.0.0.1") -> int:
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of a listener that takes nobody and whose queue is full: the system drops what more comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = []
        while True:
            caller = socket.socket()
            caller.settimeout(0.3)
            waiting.append(caller)
            try:
                caller.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port
        for caller in waiting:
            caller.close()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let this process open nothing more meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def sockets_of(host: Host) -> set[str]:
    """Return the inodes of the host's sockets."""
    assert host.process
    found: set[str] = set()
    for link in Path(f"/proc/{host.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found |= set(re.findall(r"^socket:\[(\d+)\]$", str(link.readlink())))
    return found


def rows_of(file: str) -> list[list[str]]:
    return [line.split() for line in Path("/proc/net", file).read_text().splitlines()[1:]]


async def reach(host: Host, address: str, port: int, **fields: Any) -> str:
    body = {"host": address, "port": port, **fields}
    return (await host.call("POST", "/v1/reach", json=body, token=host.token(["bind"], session=None)))["outcome"]


async def series(host: Host, name: str) -> float:
    async with host.request("GET", "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


async def heard(address: str, port: int, send: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(send)
    try:
        return await reader.read()
    except ConnectionResetError:  # it was closed with what was sent unread
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_closed_port_takes_connections_and_says_nothing(tmp_path: Path, address: str) -> None:
    port = free_port(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    shown = f"[{address}]" if ":" in address else address
    async with Host.running(tmp_path, f"--closed-listen=tcp:{shown}:{port}") as host:
        assert await heard(address, port) == b""
        assert await heard(address, port, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        await until(lambda: _counted(host, 2), what="the count")
        await host.bind()
        assert await heard(address, port) == b""
    with pytest.raises(ConnectionRefusedError):
        await heard(address, port)


async def _counted(host: Host, number: int) -> bool:
    return await series(host, "carrel_kernel_closed_port_connections_total") == number


async def test_four_hundred_callers_at_once_all_get_through_and_cost_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with Host.running(tmp_path, f"--closed-listen=tcp:127.0.0.1:{port}") as host:
        assert set(await asyncio.gather(*(heard("127.0.0.1", port) for _ in range(400)))) == {b""}
        await until(lambda: _counted(host, 400), what="the count")
        here = f":{port:04X}"  # as the kernel writes it
        kept = {row[9] for row in rows_of("tcp") if row[1].endswith(here)} & sockets_of(host)
        assert len(kept) == 1  # the listener


async def test_where_none_is_asked_for_there_is_no_closed_port(unbound: Host) -> None:
    own = sockets_of(unbound)
    assert own  # it does listen, on a Unix socket
    assert not [row for file in ("tcp", "tcp6") for row in rows_of(file) if row[9] in own]


async def test_a_host_whose_closed_port_is_taken_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        host = Host(tmp_path, f"--closed-listen=tcp:127.0.0.1:{other.getsockname()[1]}")
        host.workspace.mkdir()
        host.write_keys()
        process = await host.spawn()
        assert await asyncio.wait_for(process.wait(), 60) == 2
    assert "not_started" in host.log.read_text()


async def test_without_descriptors_the_closed_port_waits_and_goes_on() -> None:
    taken: list[None] = []
    with closing(ClosedPort("127.0.0.1", 0, lambda: taken.append(None))) as closed, socket.socket() as caller:
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        with no_descriptors_left():
            await loop.sock_connect(caller, ("127.0.0.1", closed.port))
            await asyncio.sleep(0.05)  # many turns of the loop: one that never waits would be at it all the time
            assert taken == []
        assert await loop.sock_recv(caller, 1) == b""
    assert taken == [None]


async def test_reach_tells_a_listener_from_a_free_port_silence_and_no_way(unbound: Host, silent: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await reach(unbound, "127.0.0.1", listener.getsockname()[1]) == "connected"
    assert await reach(unbound, "127.0.0.1", free_port()) == "refused"
    assert await reach(unbound, "127.0.0.1", silent, timeout_seconds=0.3) == "timeout"
    assert await reach(unbound, "255.255.255.255", 80) == "unreachable"  # TCP has no way to all
    for outcome in ("connected", "refused", "timeout", "unreachable"):
        assert await series(unbound, f'carrel_kernel_reaches_total{{outcome="{outcome}"}}') == 1


async def test_reach_goes_over_ipv6(unbound: Host) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        assert await reach(unbound, "::1", listener.getsockname()[1]) == "connected"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"host": "localhost", "port": 80}, "IP address"),
        ({"host": "", "port": 80}, "IP address"),
        ({"host": "[::1]", "port": 80}, "IP address"),
        ({"host": "127.0.0.1:80", "port": 80}, "IP address"),
        ({"host": "fe80::1%lo", "port": 80}, "without a zone"),
        ({"host": "127.0.0.1", "port": 0}, "port must be"),
        ({"host": "127.0.0.1", "port": 65536}, "port must be"),
        ({"host": "127.0.0.1", "port": "80"}, "ReachRequest"),
        ({"host": "127.0.0.1", "port": 80, "timeout_seconds": 0}, "timeout_seconds must be"),
        ({"host": "127.0.0.1", "port": 80, "timeout_seconds": 5.1}, "timeout_seconds must be"),
        ({"host": "127.0.0.1", "port": 80, "send": "x"}, "ReachRequest"),
    ],
)
async def test_names_and_what_is_out_of_range_are_refused(unbound: Host, body: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match="400") as refused:
        await unbound.call("POST", "/v1/reach", json=body, token=unbound.token(["bind"], session=None))
    assert refused.value.code == "bad_request"
    assert says in str(refused.value)


async def test_a_bound_host_reaches_nobody_any_more_and_a_try_that_began_before_ends(
    unbound: Host, silent: int
) -> None:
    began = asyncio.create_task(reach(unbound, "127.0.0.1", silent, timeout_seconds=5))
    await until(lambda: _connecting(unbound, silent), what="the try")
    await unbound.bind()
    with pytest.raises(Refused, match="409") as refused:
        await reach(unbound, "127.0.0.1", silent)
    assert refused.value.code == "already_bound"
    assert await began == "timeout"


def _connecting(host: Host, port: int) -> int:
    """Return how many connections to the port the host waits for; state 2 is SYN_SENT. Source: proc(5), net/tcp."""
    own = sockets_of(host)
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" and row[9] in own for row in rows_of("tcp"))


async def test_a_few_tries_go_on_at_once_and_the_next_has_room_when_one_ended(unbound: Host, silent: int) -> None:
    tries = [asyncio.create_task(reach(unbound, "127.0.0.1", silent, timeout_seconds=3)) for _ in range(MAX_TRIES)]
    await until(lambda: _connecting(unbound, silent) == MAX_TRIES, what="the tries")
    with pytest.raises(Refused, match="429") as refused:
        await reach(unbound, "127.0.0.1", silent)
    assert refused.value.code == "queue_full"
    assert set(await asyncio.gather(*tries)) == {"timeout"}
    assert await reach(unbound, "127.0.0.1", free_port()) == "refused"


async def test_a_try_that_cannot_be_made_has_no_outcome() -> None:
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        await _outcome(ipaddress.ip_address("127.0.0.1"), 80, 1.0)
