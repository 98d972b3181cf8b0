"""Fixtures: a real kernel host as a child process on a Unix socket, and a client that signs its own tokens."""

from __future__ import annotations

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
