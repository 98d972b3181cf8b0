"""A list of allowed imports in front of cells, in the real host: a lint; what code may do is decided elsewhere.

Plan
- A cell that imports something else is refused before anything of it runs, and is told the import, its line and what is
  allowed; so are magics, shell commands and what comes over a Jupyter client's WebSocket.
- What is allowed runs as ever, with the magics that analysis needs; variables, completion and snapshots work.
- A new process of the kernel has the list again; without a list nothing is checked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.kernel.host import Host
from tests.integration.kernel.jupyter import connect, of_type

from carrel_kernel.inside.code_check import STANDARD
from carrel_wire.events import Error, Finished


@pytest.fixture
async def linted(tmp_path: Path) -> AsyncIterator[Host]:
    async with Host.running(tmp_path, "--allowed-imports=standard,json") as host:
        await host.bind()
        yield host


async def refusal(host: Host, code: str) -> str:
    """Return what a cell that is refused is told."""
    events = await host.run(code)
    (error,) = (event for event in events if isinstance(event, Error))
    assert isinstance(events[-1], Finished)
    assert (events[-1].status, events[-1].lost_state, error.name) == ("error", False, "CodeNotAllowed")
    assert "nothing has run" in error.traceback[0]
    return error.value


async def test_what_is_not_allowed_is_refused_before_anything_runs(linted: Host) -> None:
    told = await refusal(linted, "print('ran')\nran = 1\nimport os")
    assert told.splitlines() == [
        "line 3, column 1: import os: not among the allowed imports",
        f"allowed imports: {', '.join(STANDARD)}, json; whoever runs this installation can allow more",
    ]
    assert "%pip: not among the allowed magics" in await refusal(linted, "ran = 1\n%pip install something")
    assert "!ls: shell commands are not allowed" in await refusal(linted, "ran = 1\n!ls")
    async with connect(linted) as client:
        (error,) = of_type(await client.execute("ran = 1\nimport os"), "error")
        assert error["ename"] == "CodeNotAllowed"
    await linted.call("POST", "/v1/kernels/main/restart")
    assert "import os" in await refusal(linted, "import os")
    listing = await linted.call("GET", "/v1/kernels/main/variables")
    assert listing["variables"] == []


async def test_what_is_allowed_runs_as_ever(linted: Host) -> None:
    code = "import json, numpy as np\n%time total = int(np.arange(5).sum())\nprint(json.dumps(total))"
    assert (await linted.text(code)).endswith("10\n")
    listing = await linted.call("GET", "/v1/kernels/main/variables")
    assert {variable["name"]: variable["summary"] for variable in listing["variables"]}["total"] == "10"
    completion = await linted.call("POST", "/v1/kernels/main/complete", json={"code": "tot", "cursor_pos": 3})
    assert "total" in completion["matches"]
    snapshot = await linted.call("POST", "/v1/kernels/main/snapshot", json={})
    assert [saved["name"] for saved in snapshot["variables"]["variables"]] == ["total"]


async def test_without_a_list_nothing_is_checked(host: Host) -> None:
    assert await host.text("import os; print(os.path.basename('a/b'), eval('1'))") == "b 1\n"
