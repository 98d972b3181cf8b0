"""Fixtures of real servers: Postgres, Redis and an S3 (versitygw) on loopback, without a container engine.

Each is started once per test process, on a free port, in a folder of its own and as a process group of its own, and is
stopped by that group's id. What is not installed skips the tests that need it, with the reason. Postgres is cloned: the
schema is made once as a template, and every test module gets a database of its own from it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store
from tools.go_tools import ToolError, ensure

READY_SECONDS = 30.0
TEMPLATE = "carrel_template"
LOGIN = "gateway"
"""Like a real installation's: a member of the gateway's roles, and nothing else."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    """Return whether somebody accepts connections on the port."""
    with socket.create_connection(("127.0.0.1", port), 0.5):
        return True


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program as the leader of its own process group."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True, **options)


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until the program answers; raises when it ends before."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.01)
    raise TimeoutError(f"{process.args} did not answer within {READY_SECONDS} s")


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """End the program's group, by force when it does not go."""
    for step in (how, signal.SIGKILL):
        try:
            os.killpg(process.pid, step)
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            pass
        return


def program(name: str, *patterns: str) -> str:
    """Return the path of a program, or skip."""
    found = shutil.which(name)
    for pattern in patterns:
        found = found or next(map(str, sorted(Path("/").glob(pattern), reverse=True)), None)
    return found or pytest.skip(f"{name} is not installed; as root: python3 -m tools.setup system")


@dataclass(frozen=True)
class Postgres:
    """A server; its superuser needs no password."""

    port: int
    bin: str

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the address of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements as the superuser, and return what they print."""
        commands = [part for statement in statements for part in ("-c", statement)]
        psql = [f"{self.bin}/psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", self.url(database), *commands]
        done = subprocess.run(psql, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def clone(self) -> str:
        """Make a database from the template, and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name


@dataclass(frozen=True)
class ObjectStore:
    """An S3 with one bucket."""

    endpoint: str
    bucket: str = "carrel"
    access_key: str = "test-access"
    secret_key: str = "test-secret"
    region: str = "us-east-1"

    def opened(self) -> S3Store:
        """Return the bucket, as a program that is not the gateway sees it."""
        return S3Store(
            self.bucket,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            endpoint=self.endpoint,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres with the schema of this version as a template.

    Its folder is not among pytest's: every other pytest that starts closes those to all users but its own.
    """
    data = Path(tempfile.mkdtemp(prefix="carrel-postgres-"))
    binaries = init_postgres(data)
    port = free_port()
    fast = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=32MB")
    process = start_postgres(data, binaries, port, fast)
    try:
        server = Postgres(port, binaries)
        make_template(server)
        yield server
    finally:
        stop(process, signal.SIGINT)  # the fast kind of shutdown
        shutil.rmtree(data)


def init_postgres(data: Path) -> str:
    """Make an empty cluster of databases in a folder, and return where the programs are; skips where there are none."""
    initdb = program("initdb", "usr/lib/postgresql/*/bin/initdb")
    prefix = _as_nobody(data) if os.geteuid() == 0 else ()
    subprocess.run(
        [*prefix, initdb, "-D", f"{data}/data", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
    return str(Path(initdb).resolve().parent)


def start_postgres(data: Path, binaries: str, port: int, settings: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start Postgres on a folder that `init_postgres` made, and wait until it takes connections."""
    prefix = _as_nobody(data) if os.geteuid() == 0 else ()
    options = [part for setting in settings for part in ("-c", setting)]
    address = ("-h", "127.0.0.1", "-p", str(port), "-k", str(data))
    process = spawn([*prefix, f"{binaries}/postgres", "-D", f"{data}/data", *address, *options], cwd="/")
    ask = [f"{binaries}/pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
    try:
        wait_for(lambda: subprocess.run(ask).returncode == 0, process)
    except BaseException:
        stop(process, signal.SIGINT)
        raise
    return process


@pytest.fixture(scope="module")
def postgres_database(postgres: Postgres) -> Iterator[str]:
    """The name of a database of the module's own, with the schema."""
    name = postgres.clone()
    yield name
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def postgres_url(postgres: Postgres, postgres_database: str) -> str:
    """The address of the module's database, for the login that has the gateway's roles."""
    return postgres.url(postgres_database, LOGIN)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that keeps nothing on disk."""
    port = free_port()
    process = start_redis(port, tmp_path_factory.mktemp("redis"))
    yield f"redis://127.0.0.1:{port}/0"
    stop(process)


def start_redis(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a Redis and wait until it answers."""
    keep_nothing = ("--save", "", "--appendonly", "no", "--dir", str(folder))
    process = spawn([program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", *keep_nothing])
    wait_for(lambda: listens(port), process)
    return process


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 that checks signatures and their expiry, as mocks do not."""
    with s3_server(tmp_path_factory.mktemp("s3")) as store:
        yield store


@contextmanager
def s3_server(folder: Path, **keys: str) -> Iterator[ObjectStore]:
    """Start an S3 on a folder, with an empty bucket and the keys that are named; skips where it cannot be had."""
    try:
        path = ensure("versitygw")
    except ToolError as error:
        pytest.skip(str(error))
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}", **keys)
    (folder / "iam").mkdir(parents=True)
    (folder / "data" / store.bucket).mkdir(parents=True)  # a bucket is a folder there
    process = spawn(
        [str(path), "--port", f"127.0.0.1:{port}", "--iam-dir", f"{folder}/iam", "posix", f"{folder}/data"],
        env={**os.environ, "ROOT_ACCESS_KEY": store.access_key, "ROOT_SECRET_KEY": store.secret_key},
    )
    try:
        wait_for(lambda: listens(port), process)
        yield store
    finally:
        stop(process)


def _as_nobody(data: Path) -> tuple[str, ...]:
    """Return what runs a program as another user: Postgres refuses root."""
    nobody = pwd.getpwnam("nobody")
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    return ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")


def make_template(server: Postgres) -> None:
    """Make the database that others are cloned from, with the schema, and the login that the gateway uses."""
    from carrel_gateway.storage import migrate

    server.sql(f"CREATE DATABASE {TEMPLATE}")
    with ThreadPoolExecutor(1) as thread:  # fixtures of async tests must leave their loop alone
        thread.submit(asyncio.run, migrate.upgrade(server.url(TEMPLATE))).result()
    server.sql(f"CREATE ROLE {LOGIN} LOGIN IN ROLE carrel_app, carrel_login, carrel_worker")
