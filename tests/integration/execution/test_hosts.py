"""Kernel hosts as child processes: the local executor and the pool with the real kernel host.

Plan: a host is started once and bound; its environment and account are what they shall be; it outlives a gateway that
is killed and is adopted by the next, with its variables; an ended one is not adopted; release ends it and removes its
files; closing ends all; a host that cannot start is a clear error. A host is kept ready, becomes the next session's
with its forked kernel, is replaced when it has ended, and ends with a gateway that is killed. A start that is given up
or fails half-way leaves no process. What is committed is released: with the next code, before a look, or by itself.
Limits of the settings hold in it: memory, and the list of imports.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.support.local import LEFT_ALIVE, end_of, hosts_of, settings_for, text_of, until

from carrel_gateway.errors import ExecutorFailed, KernelLost, NotFound
from carrel_gateway.executors import child, launcher, processes
from carrel_gateway.executors.base import SessionRef
from carrel_gateway.executors.local import HostRecord, LocalExecutor
from carrel_gateway.kernels import acks
from carrel_gateway.kernels import connection as connection_of_hosts
from carrel_gateway.kernels.pool import HeldConnection, KernelPool
from carrel_gateway.kernels.signing import load_host_keys
from carrel_wire.events import Error, ExecutionEvent
from carrel_wire.host import ExecuteRequest


def new_session() -> SessionRef:
    return SessionRef(tenant_id=uuid4(), session_id=uuid4(), owner_id=uuid4())


@asynccontextmanager
async def gateway(data_dir: Path, *, ends_hosts: bool = True, **more: object) -> AsyncIterator[KernelPool]:
    settings = settings_for(data_dir, **more)
    keys = load_host_keys(settings)
    executor = await LocalExecutor.open(settings, keys.key_set)
    pool = KernelPool(settings, executor, keys.signer)
    try:
        yield pool
    finally:
        await pool.aclose()
        if ends_hosts:
            await executor.aclose()
        else:
            LEFT_ALIVE.extend(host.process for host in executor._children.values())


async def run(pool: KernelPool, session: SessionRef, code: str) -> list[ExecutionEvent]:
    connection, execution = await pool.connect(session), uuid4()
    events = [event async for event in connection.execute(execution, ExecuteRequest(code=code))]
    await connection.ack(execution, events[-1].n)
    return events


def record_of(data_dir: Path, session: SessionRef) -> HostRecord:
    return msgspec.json.decode((data_dir / "hosts" / f"{session.session_id}.json").read_bytes(), type=HostRecord)


async def test_started_once_bound_and_ended(tmp_path: Path):
    session = new_session()
    async with gateway(tmp_path) as pool:
        events = await run(pool, session, "print('in', __import__('os').getcwd())")
        assert text_of(events) == f"in {tmp_path / 'workspaces' / str(session.session_id)}\n"
        host = record_of(tmp_path, session)
        assert stat.S_IMODE(os.stat(host.socket).st_mode) & 0o077 == 0  # noqa: PTH116  one call is no burden to the loop
        await asyncio.gather(*(pool.connect(session) for _ in range(5)))
        assert record_of(tmp_path, session) == host
        state = await (await pool.connect(session)).state()
        assert state.session_uid == str(session.session_id)
        assert state.unacknowledged == []
    assert not processes.is_alive(host.pid, host.started)
    assert (tmp_path / "workspaces" / str(session.session_id)).is_dir()


async def settled(pool: KernelPool, session: SessionRef, *, times: int) -> HeldConnection:
    """Run code as recordings do, and return the connection, which has not told the host of the last one yet."""
    connection = await pool.connect(session)
    for _ in range(times):
        execution = uuid4()
        events = [event async for event in connection.execute(execution, ExecuteRequest(code="1"))]
        connection.settle(execution, events[-1].n)
    return connection


async def held_by(data_dir: Path, session: SessionRef) -> list[str]:
    """Return what the host holds unacknowledged, asked over a connection that has nothing to tell it."""
    async with gateway(data_dir, ends_hosts=False) as pool:
        return [item.id for item in (await (await pool.connect(session)).state()).unacknowledged]


async def test_committed_events_are_released_with_the_next_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acks, "WAIT_SECONDS", 3600.0)  # nothing is told by itself
    session = new_session()
    async with gateway(tmp_path) as pool:
        connection = await settled(pool, session, times=3)
        assert len(await held_by(tmp_path, session)) == 1
        assert (await connection.state()).unacknowledged == [], "a look tells it first"
        await settled(pool, session, times=1)
        monkeypatch.setattr(connection_of_hosts, "ACKNOWLEDGED_HEADER", "Not-Known")  # as to an older host
        await settled(pool, session, times=2)
        assert len(await held_by(tmp_path, session)) == 3
        assert (await connection.state()).unacknowledged == [], "none was forgotten"
        await settled(pool, session, times=1)
        await pool.forget(session.session_id)
        assert len(await held_by(tmp_path, session)) == 1, "what was not told is there to be adopted"


async def test_committed_events_are_released_a_moment_later_by_themselves(tmp_path: Path):
    session = new_session()
    async with gateway(tmp_path) as pool:
        await settled(pool, session, times=1)
        async with asyncio.timeout(60):
            while await held_by(tmp_path, session):  # noqa: ASYNC110  another process has it
                await asyncio.sleep(0.05)


async def test_no_secret_of_the_gateway_is_in_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLM_API_KEY", "sk-canary")
    monkeypatch.setenv("CARREL_DATABASE_URL", "postgresql://canary@nowhere/x")
    async with gateway(tmp_path) as pool:
        events = await run(
            pool,
            new_session(),
            "import os\nprint(dict(os.environ))\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "    if os.getuid() == 0: break  # as root the system itself lets everything through\n"
            "    try: print(open(f'/proc/{pid}/environ').read())\n"
            "    except OSError: pass",
        )
    assert end_of(events).status == "ok"
    assert "canary" not in text_of(events)


async def test_adopted_by_the_next_gateway_with_its_variables(tmp_path: Path):
    session = new_session()
    async with gateway(tmp_path, ends_hosts=False) as pool:
        await run(pool, session, "x = 42")
        host = record_of(tmp_path, session)
    async with gateway(tmp_path) as pool:
        connection = await pool.find(session)
        assert connection is not None
        assert not connection.fresh
        assert text_of(await run(pool, session, "print(x)")) == "42\n"
        assert record_of(tmp_path, session) == host


async def test_outlives_a_gateway_that_is_killed(tmp_path: Path):
    """The signal of a terminal goes to a whole group; SIGKILL to the one process: the host is in neither's way."""
    session = new_session()
    process = await killable_gateway(tmp_path, session, "x = 42")
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    async with gateway(tmp_path) as pool:
        assert text_of(await run(pool, session, "print(x)")) == "42\n"


async def killable_gateway(
    data_dir: Path, session: SessionRef, code: str, *, spare: bool = False
) -> asyncio.subprocess.Process:
    """Return a gateway in a process group of its own, when it has run code in a session."""
    script = (
        "import asyncio, sys\nfrom uuid import UUID\n"
        "from tests.integration.execution.test_hosts import SessionRef, gateway, run\nfrom pathlib import Path\n"
        "async def main():\n"
        "    session = SessionRef(*map(UUID, sys.argv[2:5]))\n"
        f"    async with gateway(Path(sys.argv[1]), ends_hosts=False, spare_kernel_host={spare}) as pool:\n"
        f"        await run(pool, session, {code!r})\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(data_dir)),
        *map(str, (session.tenant_id, session.session_id, session.owner_id)),
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "operator:gateway:kernel-image:."},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    async with asyncio.timeout(100):
        while (line := await process.stdout.readline()) != b"ready\n":
            assert line, "it ended"
    return process


async def test_a_dead_host_is_not_adopted(tmp_path: Path):
    session = new_session()
    async with gateway(tmp_path) as pool:
        await run(pool, session, "x = 42")
        host = record_of(tmp_path, session)
        os.kill(host.pid, signal.SIGKILL)
        with pytest.raises(KernelLost):
            await run(pool, session, "1")

        async def dead() -> bool:
            return not processes.is_alive(host.pid, host.started)

        await until(dead)
        await pool.forget(session.session_id)
        assert await pool.find(session) is None
        assert text_of(await run(pool, session, "print('x' in dir())")) == "False\n"
        assert record_of(tmp_path, session).host_id != host.host_id


async def test_release_ends_the_host_and_removes_its_files(tmp_path: Path):
    session = new_session()
    async with gateway(tmp_path) as pool:
        await run(pool, session, "open('a.txt', 'w').write('x')")
        host = record_of(tmp_path, session)
        await pool.release(session)
        await pool.release(session)
        assert not processes.is_alive(host.pid, host.started)
        assert not (tmp_path / "workspaces" / str(session.session_id)).exists()
        assert not Path(host.socket).parent.exists()
        assert await pool.find(session) is None


async def test_files_go_both_ways(tmp_path: Path):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield os.urandom(1) * 65536

    async with gateway(tmp_path) as pool:
        connection = await pool.connect(new_session())
        await connection.put_file("data/with space & ü.bin", chunks())
        assert [(file.path, file.size) for file in await connection.files()] == [
            ("data/with space & ü.bin", 64 * 65536)
        ]
        assert len(b"".join([part async for part in connection.get_file("data/with space & ü.bin")])) == 64 * 65536
        await connection.delete_file("data/with space & ü.bin")
        with pytest.raises(NotFound):
            [part async for part in connection.get_file("data/with space & ü.bin")]


def is_held(log: Path) -> bool:
    """Whether a host, or a process that it started, has its log open."""
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def ready_host(data_dir: Path, *, but: set[int]) -> int:
    """Wait for a host that can fork, and return its process id."""

    async def ready() -> bool:
        logs = [path.read_text() for path in (data_dir / "hosts").glob("*.host.log")]
        return any("fork_server_loaded" in log for log in logs)

    await until(ready)
    (found,) = hosts_of(data_dir) - but
    return found


async def test_a_host_is_kept_ready_for_the_next_session(tmp_path: Path):
    first, second = new_session(), new_session()
    async with gateway(tmp_path, spare_kernel_host=True, kernel_preload="pandas") as pool:
        spare = await ready_host(tmp_path, but=set())
        code = "import os, sys; print(os.getcwd(), 'pandas' in sys.modules)"
        assert text_of(await run(pool, first, code)) == f"{tmp_path / 'workspaces' / str(first.session_id)} True\n"
        assert record_of(tmp_path, first).pid == spare
        other = await ready_host(tmp_path, but={spare})
        os.kill(other, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, other, os.WEXITED | os.WNOWAIT)
        await run(pool, second, "pass")
        assert record_of(tmp_path, second).pid not in {spare, other}
        await pool.release(first)
        assert spare not in hosts_of(tmp_path)
    assert hosts_of(tmp_path) == set()
    assert not list((tmp_path / "hosts").glob("*.host.log"))


async def test_limits_of_the_settings_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SANDBOX_MAX_MEMORY_MB", "256")
    session = new_session()
    async with gateway(tmp_path, kernel_allowed_imports="standard") as pool:
        refused = await run(pool, session, "x = 1\nimport os")
        assert [event.name for event in refused if isinstance(event, Error)] == ["CodeNotAllowed"]
        end = end_of(await run(pool, session, "hog = bytearray(b'x' * (300 << 20))"))
        assert (end.status, end.lost_state) == ("out_of_memory", False)
        assert end.message
        assert "the limit is 256 MiB" in end.message
        assert text_of(await run(pool, session, "print('x' in dir())")) == "False\n"


async def test_a_host_that_is_nobodys_ends_with_a_gateway_that_is_killed(tmp_path: Path):
    session = new_session()
    process = await killable_gateway(tmp_path, session, "x = 42", spare=True)
    bound = record_of(tmp_path, session).pid
    spare = await ready_host(tmp_path, but={bound})
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()

    async def ended() -> bool:
        return hosts_of(tmp_path) == {bound} and not any(map(is_held, (tmp_path / "hosts").glob("*.host.log")))

    await until(ended)  # with the kernel that it kept ready
    assert spare != bound
    async with gateway(tmp_path) as pool:
        assert text_of(await run(pool, session, "print(x)")) == "42\n"
        assert not list((tmp_path / "hosts").glob("*.host.log"))


async def test_a_host_that_cannot_start_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child, "command", lambda **_: [sys.executable, "-c", "raise SystemExit(3)"])
    async with gateway(tmp_path) as pool:
        with pytest.raises(ExecutorFailed, match="ended with code 3"):
            await pool.connect(new_session())


async def test_a_host_that_does_not_listen_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child, "command", lambda **_: [sys.executable, "-c", "import time; time.sleep(600)"])
    session = new_session()
    async with gateway(tmp_path, kernel_start_seconds=0.5) as pool:
        with pytest.raises(ExecutorFailed, match="did not listen"):
            await pool.connect(session)
    assert not list((tmp_path / "hosts").glob("*.json"))


async def test_a_start_that_is_given_up_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The caller is gone while a thread makes the process, which nothing can stop."""
    made: list[subprocess.Popen[bytes]] = []
    making, go_on = threading.Event(), threading.Event()

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            making.set()
            go_on.wait(30)
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(launcher.subprocess, "Popen", Slow)
    session = new_session()
    async with gateway(tmp_path) as pool:
        starting = asyncio.create_task(pool.connect(session))
        await asyncio.to_thread(making.wait, 30)
        starting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
        (given_up,) = made
        assert given_up.returncode is not None
        assert not list((tmp_path / "hosts").glob("*.json"))
        assert text_of(await run(pool, session, "print('runs')")) == "runs\n"


async def test_a_host_that_got_no_record_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = new_session()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with gateway(tmp_path) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(LocalExecutor, "_write", full)
            with pytest.raises(OSError, match="no space"):
                await pool.connect(session)
        (left,) = hosts_of(tmp_path)
        assert text_of(await run(pool, session, "print('runs')")) == "runs\n"
        assert hosts_of(tmp_path) == {record_of(tmp_path, session).pid}
        assert record_of(tmp_path, session).pid != left


@pytest.fixture
def open_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder that every user can pass to, with a secret in it; skips where there is no other account."""
    parent = Path(tempfile.mkdtemp(prefix="carrel-"))
    parent.chmod(0o755)
    data_dir = parent / "data"
    account, reason = child.account_for_hosts(data_dir)
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if account is None and os.geteuid() == 0 and system.exists():
        # This interpreter lies in root's home: one of the system's, of the same version, can use the same packages.
        subprocess.run([system, "-m", "venv", "--without-pip", parent / "venv"], check=True, timeout=100)
        (packages,) = (parent / "venv").glob("lib/*/site-packages")
        (packages / "same.pth").write_text(sysconfig.get_path("purelib"))
        monkeypatch.setattr(sys, "executable", str(parent / "venv" / "bin" / "python"))
        account, reason = child.account_for_hosts(data_dir)
    if account is None:
        pytest.skip(f"hosts run as the gateway's own user here: {reason or 'it is not root'}")
    data_dir.mkdir()
    (data_dir / "carrel.db").write_text("secret")
    yield data_dir
    shutil.rmtree(parent)


async def test_root_starts_hosts_as_nobody(open_dir: Path):
    async with gateway(open_dir) as pool:
        events = await run(
            pool,
            new_session(),
            "import os\nprint(os.getuid(), os.getgid(), os.getgroups())\nopen('mine.txt', 'w').write('x')\n"
            f"try: print(open({str(open_dir / 'carrel.db')!r}).read())\nexcept PermissionError: print('closed')\n"
            f"try: print(os.listdir({str(open_dir)!r}))\nexcept PermissionError: print('closed')",
        )
    assert text_of(events) == "65534 65534 []\nclosed\nclosed\n", events
