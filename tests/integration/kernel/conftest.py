"""Fixtures: a real kernel host as a child process on a Unix socket, and a client that signs its own tokens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """A bound host with its kernel `main`."""
    async with Host.running(tmp_path) as host:
        await host.bind()
        yield host


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """One bound host for the tests of a module whose `host` it is: a start costs seconds, a clean kernel hardly any."""
    async with Host.running(tmp_path_factory.mktemp("host")) as host:
        await host.bind()
        yield host


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path: Path) -> AsyncIterator[Host]:
    """A bound host of the test's own, where the module has a lasting one."""
    async with Host.running(tmp_path) as host:
        await host.bind()
        yield host


@pytest.fixture
async def unbound(tmp_path: Path) -> AsyncIterator[Host]:
    """A host that belongs to nobody yet."""
    async with Host.running(tmp_path) as host:
        yield host


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach; pytest's own are its user's alone, and every pytest of that user sees to it."""
    with tempfile.TemporaryDirectory(prefix="ck-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
async def unprivileged(open_folder: Path) -> AsyncIterator[Host]:
    """A host under a user id without rights, as in a pod: root may read everything."""
    async with Host.running(open_folder, user=65534 if os.geteuid() == 0 else None) as host:
        await host.bind()
        yield host
