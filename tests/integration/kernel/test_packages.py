"""Packages that a session adds: from a wheel in its workspace, without any index.

Plan: a wheel that was uploaded can be installed with `%pip` and imported at once, in this kernel and in the next, and
lies in the workspace; it replaces none of the installed ones; it is no artifact.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from tests.integration.kernel.host import Host

from carrel_wire.events import Artifact, Finished


def make_wheel(folder: Path, name: str, version: str) -> str:
    """Write a wheel with one module and return its file name. Source: PEP 427."""
    info = f"{name}-{version}.dist-info"
    file = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / file, "w") as wheel:
        wheel.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return file


@pytest.mark.parametrize("fork", ["yes", "no"])
async def test_a_wheel_of_the_workspace_can_be_installed_and_stays(tmp_path: Path, fork: str) -> None:
    async with Host.running(tmp_path, f"--fork-server={fork}") as host:
        await host.bind()
        uploads = host.workspace / "data"
        uploads.mkdir()
        mine, theirs = make_wheel(uploads, "carrel_test_addition", "1.2"), make_wheel(uploads, "numpy", "99.0")
        events = await host.run(f"%pip install --quiet --no-index --no-deps data/{mine} data/{theirs}")
        assert isinstance(events[-1], Finished)
        assert events[-1].status == "ok", events
        assert not [event for event in events if isinstance(event, Artifact)]
        code = (
            "import carrel_test_addition as added, numpy; print(added.__version__, added.__file__, numpy.__version__)"
        )
        said = await host.text(code)
        version, file, numpy = said.split()
        assert (version, file) == ("1.2", str(host.workspace / ".packages" / "carrel_test_addition.py"))
        assert numpy != "99.0"
        await host.call("POST", "/v1/kernels/main/restart")
        assert await host.text(code) == said
