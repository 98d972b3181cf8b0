"""Kinds of values: restored equal in another process, or named with the reason why not.

Plan
- One session makes every kind of `kinds`, and a snapshot is taken of it and carried to other hosts.
- What can be saved is restored equal, by the comparison that its row has: in a forked kernel and in a fresh one.
- What cannot be saved, and what cannot be restored, is in the lists with its reason; nothing is in two of them.
- What variables share stays shared; functions find the variables of the session that they are restored in.
- Working directory, import path, random numbers, matplotlib's settings and the sources of cells come back.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.kernel import kinds
from tests.integration.kernel.carrying import carry
from tests.integration.kernel.host import Host, until

SETTINGS = """
import inspect, random
import matplotlib as mpl
os.makedirs("lib/deep", exist_ok=True)
pathlib.Path("lib/helper.py").write_text("def help_(): return 'helped'\\n")
sys.path.append(os.path.abspath("lib"))
import helper
from helper import help_
import os.path as paths
os.chdir("lib/deep")
random.seed(4); np.random.seed(4)
random.random(); np.random.rand()
mpl.rcParams["lines.linewidth"] = 7.5
"""
NEXT_NUMBERS = "print(random.random(), np.random.rand(), random.random())"
SETTINGS_SAME = """
assert os.getcwd().endswith("workspace/lib/deep"), os.getcwd()
assert help_() == helper.help_() == "helped" and help_.__module__ == "helper"
assert paths is os.path
assert mpl.rcParams["lines.linewidth"] == 7.5
assert inspect.getsource(function) == "def function(x):\\n    return x + offset\\n"
"""


async def test_every_kind(tmp_path: Path) -> None:
    for name in ("here", "forked", "fresh"):
        (tmp_path / name).mkdir()
    async with Host.running(tmp_path / "here") as here:
        await here.bind(owner="me")
        numbers = await made(here)
        manifest = await here.call("POST", "/v1/kernels/main/snapshot", json={"timeout_seconds": 20})
        not_saved = {item["name"]: item["reason"] for item in manifest["variables"]["not_saved"]}
        wrong = {
            name: not_saved.get(name)
            for name, (_, reason) in kinds.NOT_SAVED.items()
            if reason not in not_saved.get(name, "")
        }
        assert wrong == {}
        assert not_saved.pop("coroutine") == "a coroutine cannot be saved"
        assert not_saved.keys() == kinds.NOT_SAVED.keys()
        codecs = {item["codec"] for item in manifest["variables"]["objects"]}
        assert codecs == {"npy", "arrow"}
        assert manifest["variables"]["buffers"]
        for name, flag in (("forked", "yes"), ("fresh", "no")):
            async with Host.running(tmp_path / name, f"--fork-server={flag}") as there:
                await there.bind(owner="me")
                await of_that_origin(there, forked=name == "forked")
                await carry(here, there, manifest)
                reply = await there.call("POST", "/v1/kernels/main/restore", json={"manifest": manifest})
                await compared(there, reply, numbers)


async def of_that_origin(host: Host, *, forked: bool) -> None:
    """Wait for what kernels are made of, and replace one that was made before."""

    async def settled() -> bool:
        return ((await host.state())["fresh_because"] is None) == forked

    await until(settled)
    await host.call("POST", "/v1/kernels/main/restart")
    assert ((await host.main())["fresh_because"] is None) == forked


async def made(host: Host) -> str:
    """Make everything, and return the random numbers that come next."""
    await host.text(kinds.PREPARED)
    values = [(kind.name, kind.code) for kind in kinds.RESTORED]
    others = [(name, code) for name, (code, _) in (kinds.NOT_SAVED | kinds.NOT_RESTORED).items()]
    await host.text("\n".join(f"{name} = {code}" for name, code in (*values, *others)))
    await host.text(kinds.TOGETHER)
    await host.text("coroutine = later()")
    await host.text(SETTINGS)
    return await host.text(f"state = random.getstate(), np.random.get_state()\n{NEXT_NUMBERS}\n"
                           "random.setstate(state[0]); np.random.set_state(state[1]); del state")  # fmt: skip


async def compared(host: Host, reply: dict[str, object], numbers: str) -> None:
    assert await host.text(NEXT_NUMBERS) == numbers
    not_restored = {item["name"]: item["reason"] for item in reply["not_restored"]}  # type: ignore[attr-defined]
    for name, (_, reason) in kinds.NOT_RESTORED.items():
        assert not_restored.pop(name) == reason
    assert not_restored.keys() == {"coroutine", *kinds.NOT_SAVED}
    restored = reply["restored"]
    assert isinstance(restored, list)
    assert {kind.name for kind in kinds.RESTORED} <= set(restored)
    assert not not_restored.keys() & set(restored)
    wrong = {}
    for kind in kinds.RESTORED:
        outcome = await host.run(f"value, again = {kind.name}, {kind.code}\n{kind.same}")
        if getattr(outcome[-1], "status", None) != "ok":
            wrong[kind.name] = outcome
    assert wrong == {}
    for code in (SETTINGS_SAME, kinds.TOGETHER_SAME):
        await host.text(code)


@pytest.mark.parametrize("rows", [[kind.name for kind in kinds.RESTORED], [*kinds.NOT_SAVED, *kinds.NOT_RESTORED]])
def test_the_table_is_long_and_has_no_name_twice(rows: list[str]) -> None:
    assert len(set(rows)) == len(rows) > 20
