"""Fixtures: a real kernel host as a child process on a Unix socket, and a client that signs its own tokens."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.kernel.host import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """A bound host with its kernel `main`."""
    async with Host.running(tmp_path) as host:
        await host.bind()
        yield host


@pytest.fixture
async def unbound(tmp_path: Path) -> AsyncIterator[Host]:
    """A host that belongs to nobody yet."""
    async with Host.running(tmp_path) as host:
        yield host


@pytest.fixture
async def unprivileged(tmp_path: Path) -> AsyncIterator[Host]:
    """A host under a user id without rights, as in a pod: root may read everything."""
    uid = 65534 if os.geteuid() == 0 else None
    if uid is not None:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
    async with Host.running(tmp_path, user=uid) as host:
        await host.bind()
        yield host
