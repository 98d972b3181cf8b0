"""Snapshots against the real host: what is refused, what hostile code can do, whose they are, files, and the end.

Plan
- Whose (threat 62): another session's, another owner's, an altered manifest are refused; a fork's is let in when bind
  said so, also when a later bind did. A content that is not what its digest says is refused wherever it shows up.
- Hostile code: hangs that no signal ends, answers that lie, links in the place of contents; the host goes on.
- Time and size: what does not fit is left out and named, the rest is there; too large a workspace is refused.
- Files: only what changed is sent, modes and empty folders come back, nothing outside the workspace is read or written.
- Running code: a busy kernel refuses; a cell that comes meanwhile runs afterwards; a kernel that has done something
  since cannot be sealed, one that has not can, and then runs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.integration.kernel.carrying import carry, get, put
from tests.integration.kernel.host import Host, Refused, until

from carrel_wire.events import Finished
from carrel_wire.snapshots import Manifest, SavedFile, SavedWorkspace

SNAPSHOT = "/v1/kernels/main/snapshot"
RESTORE = "/v1/kernels/main/restore"
SEAL = "/v1/kernels/main/seal"
OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# Fresh kernels start faster than a fork server has imported everything; test_snapshot_kinds has both.
FLAGS = ("--fork-server=no", "--spare-kernels=0")


@pytest.fixture
async def unbound(tmp_path: Path) -> AsyncIterator[Host]:
    async with Host.running(tmp_path, *FLAGS) as unbound:
        yield unbound


@pytest.fixture
async def host(unbound: Host) -> Host:
    await unbound.bind()
    return unbound


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Host]:
    (tmp_path / "other").mkdir()
    async with Host.running(tmp_path / "other", *FLAGS) as other:
        yield other


async def taken(host: Host, **fields: Any) -> dict[str, Any]:
    return await host.call("POST", SNAPSHOT, json=fields)


async def refused(host: Host, method: str, path: str, body: Any, **options: Any) -> tuple[int, str | None]:
    with pytest.raises(Refused) as caught:
        await host.call(method, path, json=body, **options)
    return caught.value.status, caught.value.code


def names(items: list[dict[str, Any]]) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in items}


# ---------------------------------------------------------------------- whose it is


async def test_a_snapshot_goes_to_its_session_and_to_forks_of_its_owner_only(unbound: Host, other: Host) -> None:
    await unbound.bind(owner="me")
    await unbound.run("x = 5")
    mine = await taken(unbound)
    assert (mine["session_uid"], mine["owner"]) == ("session-1", "me")
    refusal = (403, "snapshot_refused")

    def token() -> str:
        return other.token(session="session-2")

    await other.bind(session="session-2", owner="me")
    for path in (RESTORE, "/v1/snapshots/missing"):
        assert await refused(other, "POST", path, {"manifest": mine}, token=token()) == refusal
        for change in ({"session_uid": "session-2"}, {"owner": ""}, {"taken_at": 0.0}, {"digest": OF_NOTHING}):
            altered = mine | change
            assert await refused(other, "POST", path, {"manifest": altered}, token=token()) == refusal
    assert await refused(other, "POST", RESTORE, {"manifest": mine | {"format": "x"}}, token=token()) == (
        400,
        "bad_request",
    )
    assert (await other.bind(session="session-2", owner="me", snapshots_of=["session-1"]))["already"]
    reply = await other.call("POST", "/v1/snapshots/missing", json={"manifest": mine}, token=token())
    assert reply["missing"]
    for digest in reply["missing"]:
        data = await get(unbound, digest)
        async with other.request("PUT", f"/v1/snapshots/blobs/{digest}", data=data, token=token()) as answer:
            assert answer.status == 204
    reply = await other.call("POST", RESTORE, json={"manifest": mine}, token=token())
    assert reply["restored"] == ["x"]


async def test_an_owner_is_said_once_and_another_owners_fork_is_none(unbound: Host, other: Host) -> None:
    await unbound.bind()
    await unbound.bind(owner="me")
    with pytest.raises(Refused) as caught:
        await unbound.bind(owner="you")
    assert caught.value.code == "already_bound"
    mine = await taken(unbound)
    await other.bind(session="session-2", owner="you", snapshots_of=["session-1"])
    token = other.token(session="session-2")
    assert await refused(other, "POST", RESTORE, {"manifest": mine}, token=token) == (403, "snapshot_refused")


async def test_contents_that_are_not_what_their_digest_says_are_refused(host: Host) -> None:
    await host.run("import numpy as np\nx = np.arange(100_000)\nopen('file.txt', 'w').write('before')")
    manifest = await taken(host)
    array = manifest["variables"]["objects"][0]["sha256"]
    file = manifest["workspace"]["files"][0]["sha256"]
    for digest, code in ((OF_NOTHING, "wrong_digest"), ("0" * 63, "bad_request"), ("..%2f" * 12, "bad_request")):
        with pytest.raises(Refused) as caught:
            await put(host, digest, b"something")
        assert (caught.value.status, caught.value.code) == (400, code)
    with pytest.raises(Refused) as caught:
        await get(host, OF_NOTHING)
    assert caught.value.code == "blob_not_found"
    # Code of the session can write where the host keeps contents: it is found out whenever they are read.
    await host.call("POST", "/v1/kernels/main/restart")
    path = host.workspace / ".carrel" / "snapshots" / array
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert await refused(host, "POST", RESTORE, {"manifest": manifest}) == (400, "wrong_digest")
    (host.workspace / "file.txt").write_text("after!")
    for digest in (array, file):
        with pytest.raises(aiohttp.ClientError):
            await get(host, digest)
    path.unlink()
    with pytest.raises(Refused) as caught:
        await host.call("POST", RESTORE, json={"manifest": manifest})
    assert (caught.value.code, caught.value.detail) == ("blobs_missing", {"count": 2, "missing": sorted([array, file])})


# ---------------------------------------------------------------------- hostile code


async def test_what_no_signal_ends_is_killed_and_the_host_goes_on(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--hung-seconds=1", *FLAGS) as host:
        await host.bind()
        await _killed(host)


async def _killed(host: Host) -> None:
    before = (await host.main())["incarnation"]
    await host.run(
        "import ctypes, signal\nclass Deaf:\n    def __reduce__(self):\n"
        "        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGINT})\n"
        "        ctypes.PyDLL(None).sleep(3600)\ndeaf = Deaf()"  # nothing of Python runs beside it
    )
    taking = asyncio.create_task(refused(host, "POST", SNAPSHOT, {"timeout_seconds": 2}))
    await until(lambda: _state(host, "busy"))
    assert (await host.state())["busy"]
    waiting = asyncio.create_task(host.outcome("print('afterwards')"))
    assert await taking == (504, "deadline_exceeded")
    assert (await waiting).status == "ok"
    assert (await host.main())["incarnation"] != before
    assert (await taken(host))["variables"].get("variables") == []


async def _state(host: Host, wanted: str) -> bool:
    return (await host.main())["execution_state"] == wanted


LIES = {
    "no answer": "None",
    "no digests": "{**content, 'pickle': {'sha256': '../../file', 'size': 1}}",
    "absent": "{**content, 'pickle': {'sha256': '0' * 64, 'size': 1}}",
    "another size": "{**content, 'pickle': {**content['pickle'], 'size': 1}}",
    "a link": "{**content, 'pickle': {'sha256': linked(), 'size': content['pickle']['size']}}",
    "a long name": "{**content, 'imports': [{'name': 'x' * 1000, 'module': 'os'}]}",
    "other fields": "{**content, 'session_uid': 'another'}",
}


async def test_a_kernel_that_lies_is_not_believed(host: Host) -> None:
    await host.run(
        "import os, glob, importlib\ncalls = importlib.import_module('carrel_kernel.inside.snapshots.calls')\n"
        "real = calls.Answer.__init__\n"
        "def linked():\n"
        "    folder = glob.glob('.carrel/snapshots/.kernel-*')[0]\n"
        "    name = 'a' * 64\n"
        "    os.symlink(os.path.join(os.getcwd(), folder, content['pickle']['sha256']), f'{folder}/{name}')\n"
        "    return name\n"
        "def lying(self, given):\n"
        "    global content\n    content = given\n    real(self, eval(lie))\n"
        "calls.Answer.__init__ = lying"
    )
    for lie in LIES.values():
        await host.run(f"lie = {lie!r}")
        assert await refused(host, "POST", SNAPSHOT, {}) == (503, "kernel_unavailable"), lie
    await host.run("calls.Answer.__init__ = real")
    assert names((await taken(host))["variables"]["variables"] and []) == {}


async def test_objects_that_change_their_mind_cost_themselves_only(host: Host) -> None:
    await host.run(
        "import time\nclass Fickle:\n    def __init__(self, then): self.seen, self.then = 0, then\n"
        "    def __reduce__(self):\n"
        "        self.seen += 1\n        if self.seen > 1: self.then()\n        return (int, (7,))\n"
        "class Liar(Exception):\n    def __str__(self): raise ValueError\n"
        "def refuse(): raise Liar\n"
        "before = shared = ['kept']\nfickle = Fickle(refuse)\nafter = [shared]\n"
    )
    manifest = await taken(host)
    assert names(manifest["variables"]["not_saved"]) == {"fickle": "Liar"}
    await host.run(
        "del fickle\nslow = Fickle(lambda: time.sleep(60))\nlate = 1\nclass Meta(type):\n"
        "    __name__ = property(lambda self: 1 / 0)\nclass Odd(metaclass=Meta): ...\nodd = Odd()\n"
        "globals()[''] = globals()['x' * 300] = globals()['\\ud800'] = 1\nglobals()[5] = 6"
    )
    manifest = await taken(host, timeout_seconds=2)
    not_saved = names(manifest["variables"]["not_saved"])
    assert {name: not_saved.pop(name) for name in ("slow", "late")} == dict.fromkeys(
        ("slow", "late"), "there was no time left for it"
    )
    assert {reason for name, reason in not_saved.items() if name not in ("Meta", "Odd", "odd")} == {
        "its name is no text of at most 200 characters"
    }
    await host.call("POST", "/v1/kernels/main/restart")
    reply = await host.call("POST", RESTORE, json={"manifest": manifest})
    assert {"before", "shared", "after", "time", "Fickle"} <= set(reply["restored"])
    assert {"slow", "late"} <= names(reply["not_restored"]).keys()
    assert await host.text("print(after[0] is before is shared)") == "True\n"


async def test_reading_back_has_a_deadline_for_each_variable(host: Host) -> None:
    await host.run(
        "class Slow:\n    def __reduce__(self): return (wait, ())\n"
        "def wait():\n    while True:\n        try:\n            while True: pass\n        except Exception: pass\n"
        "first = [1]\nslow = Slow()\nlast = [2]"
    )
    manifest = await taken(host)
    await host.call("POST", "/v1/kernels/main/restart")
    reply = await host.call("POST", RESTORE, json={"manifest": manifest, "timeout_seconds": 2})
    assert names(reply["not_restored"]) == {"slow": "there was no time left for it"}
    assert await host.text("print(first, last)") == "[1] [2]\n"


# ---------------------------------------------------------------------- time and size


async def test_what_is_too_large_is_left_out_or_refused(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--snapshot-bytes=2000000", *FLAGS) as host:
        await host.bind()
        await host.run("import numpy as np\nsmall = np.zeros(100_000)\nlarge = np.zeros(1_000_000)\nlast = 1")
        manifest = await taken(host)
        assert names(manifest["variables"]["not_saved"]) == {
            "large": "TooLarge: it is larger than what is left of the snapshot's limit"
        }
        assert [item["name"] for item in manifest["variables"]["variables"]] == ["small", "last"]
        with pytest.raises(Refused) as caught:
            await put(host, OF_NOTHING, bytes(5_000_000))
        assert (caught.value.status, caught.value.code) == (413, "too_large")
        await host.run("open('large', 'wb').write(bytes(3_000_000))")
        assert await refused(host, "POST", SNAPSHOT, {}) == (413, "too_large")
        assert await host.text("print(last)") == "1\n"
        async with host.request("GET", "/metrics") as reply:
            series = await reply.text()
    for line in (
        'carrel_kernel_snapshots_total{outcome="partial",what="taken"} 1.0',
        'carrel_kernel_snapshots_total{outcome="failed",what="taken"} 1.0',
        'carrel_kernel_snapshot_seconds_count{what="taken"} 1.0',
        'carrel_kernel_snapshot_bytes_total{what="taken"} 8',
    ):
        assert line in series
    log = [json.loads(line) for line in host.log.read_text().splitlines()]
    assert [event["event"] for event in log if event["event"].startswith("snapshot_")] == [
        "snapshot_done",
        "snapshot_failed",
    ]


# ---------------------------------------------------------------------- files


async def test_only_what_changed_is_sent_and_files_come_back_as_they_were(host: Host, other: Host) -> None:
    await host.bind(owner="me")
    await other.bind(owner="me")
    await host.run(
        "import os\nos.makedirs('out/empty/deep')\n"
        "open('out/run.sh', 'w').write('run')\nos.chmod('out/run.sh', 0o750)\n"
        "open('one', 'w').write('same')\nopen('two', 'w').write('same')\nopen('ä b', 'w').close()\n"
        "open(b'\\xff', 'w').close()\nos.symlink('/etc/hostname', 'link')\nos.mkfifo('pipe')"
    )
    first = await taken(host)
    assert names(first["workspace"]["not_saved"]) == {
        "\\udcff": "its name is too long, or not UTF-8",
        "link": "a link is not saved",
        "pipe": "not a regular file is not saved",
    }
    assert await carry(host, other, first) == 4  # the pickle and three different files
    reply = await other.call("POST", RESTORE, json={"manifest": first})
    assert (reply["files"], len(reply["files_not_restored"])) == (4, 3)
    assert (other.workspace / "out/run.sh").stat().st_mode & 0o777 == 0o750
    assert (other.workspace / "two").read_text() == "same"
    assert (other.workspace / "out/empty/deep").is_dir()
    assert list((other.workspace / ".carrel/snapshots").iterdir()) == []
    assert [event.path for event in await other.run("pass") if hasattr(event, "path")] == []
    await host.run("open('two', 'w').write('other')\nos.unlink('one')")
    second = await taken(host)
    assert {file["path"] for file in second["workspace"]["files"]} == {"out/run.sh", "two", "ä b"}
    assert await carry(host, other, second) == 2


async def test_files_that_outlived_the_kernel_stay_as_they_are(host: Host, other: Host) -> None:
    await host.bind(owner="me")
    await other.bind(owner="me")
    await host.run("for n in ('newer', 'same', 'gone'): open(n, 'w').write('as of then')")
    manifest = await taken(host)
    (other.workspace / "newer").write_text("newer")
    (other.workspace / "same").write_text("as of then")
    assert await carry(host, other, manifest, keep_files=True) == 2  # the pickle, and the file that is gone
    reply = await other.call("POST", RESTORE, json={"manifest": manifest, "keep_files": True})
    assert (reply["files"], reply["files_not_restored"]) == (2, [])
    assert [(other.workspace / name).read_text() for name in ("newer", "same", "gone")] == [
        "newer",
        "as of then",
        "as of then",
    ]


async def test_being_saved_is_no_activity(host: Host) -> None:
    await host.bind()
    await host.run("x = 1")

    async def last_activity() -> float:
        return (await host.call("GET", "/v1/state"))["kernels"][0]["last_activity"]

    before = await last_activity()
    await taken(host)
    assert await last_activity() == before
    await host.run("x = 2")
    assert await last_activity() > before


async def test_nothing_is_written_outside_of_the_workspace(host: Host, other: Host, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("theirs")
    await host.bind(owner="me")
    await other.bind(owner="me")
    await host.run("import os\nos.mkdir('a')\nopen('a/file', 'w').write('mine')\nopen('b', 'w').write('mine')\n"
                   "os.makedirs('c/d')\nopen('fine', 'w').write('fine')")  # fmt: skip
    manifest = await taken(host)
    (other.workspace / "a").symlink_to(outside)
    (other.workspace / "b").mkdir()
    (other.workspace / "c").symlink_to(outside)
    await carry(host, other, manifest)
    reply = await other.call("POST", RESTORE, json={"manifest": manifest})
    assert names(reply["files_not_restored"]).keys() == {"a/file", "b", "c/d"}
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "theirs"
    assert (other.workspace / "fine").read_text() == "fine"


async def test_manifests_cannot_name_the_hosts_own_folder_or_others(host: Host) -> None:
    manifest = await taken(host)
    typed = msgspec.convert(manifest, Manifest)
    paths = ("../out", "/etc/passwd", ".carrel/spool/x", "a/../../b", "a\\b", "nul\x00")
    files = [SavedFile(path=path, size=0, mode=0o777, sha256=OF_NOTHING) for path in paths]
    changed = SavedWorkspace(files=files, folders=["../folder", ".carrel/folder"], not_saved=[])
    forged = msgspec.to_builtins(msgspec.structs.replace(typed, workspace=changed).with_digest())
    await put(host, OF_NOTHING, b"")
    reply = await host.call("POST", RESTORE, json={"manifest": forged})
    assert reply["files"] == 0
    assert names(reply["files_not_restored"]).keys() == {*paths, "../folder", ".carrel/folder"}


# ---------------------------------------------------------------------- running code, and the end


async def test_a_busy_kernel_refuses_and_a_cell_that_comes_meanwhile_waits(host: Host) -> None:
    await host.run("while True: pass", execution="loop", until_type="started")
    assert await refused(host, "POST", SNAPSHOT, {}) == (409, "kernel_busy")
    manifest = {"format": "x"}
    assert await refused(host, "POST", RESTORE, {"manifest": manifest}) == (400, "bad_request")
    await host.call("POST", "/v1/kernels/main/interrupt")
    await until(lambda: _state(host, "idle"))
    await host.run(
        "import time\nclass Slow:\n    def __reduce__(self):\n"
        "        time.sleep(1)\n        return (int, ())\nslow = Slow()"
    )
    taking = asyncio.create_task(taken(host))
    await until(lambda: _state(host, "busy"))
    assert await refused(host, "POST", SNAPSHOT, {}) == (409, "kernel_busy")
    assert await refused(host, "GET", "/v1/kernels/main/variables", None) == (409, "kernel_busy")
    outcome = await host.outcome("slow = 'changed'")
    assert outcome.status == "ok"
    manifest = await taking
    assert [item["type"] for item in manifest["variables"]["variables"] if item["name"] == "slow"] == ["Slow"]
    assert await refused(host, "POST", SEAL, {"digest": manifest["digest"]}) == (409, "kernel_changed")


async def test_a_kernel_is_sealed_only_if_nothing_has_happened_since(host: Host) -> None:
    async def seal(manifest: dict[str, Any]) -> tuple[int, str | None]:
        return await refused(host, "POST", SEAL, {"digest": manifest["digest"]})

    changed = (409, "kernel_changed")
    assert await seal({"digest": OF_NOTHING}) == changed
    first = await taken(host)
    await host.run("x = 1")
    assert await seal(first) == changed
    second = await taken(host)
    assert await seal(first) == changed
    await host.call("DELETE", SEAL)
    assert await seal(second) == changed
    third = await taken(host)
    await host.call("GET", "/v1/kernels/main/variables")
    await _through_websocket(host, "kernel_info_request", {})
    assert (await host.main())["execution_state"] == "idle"
    await _through_websocket(host, "execute_request", {"code": "x = 2", "silent": False, "allow_stdin": False})
    assert await seal(third) == changed
    fourth = await taken(host)
    await host.call("POST", "/v1/kernels/main/restart")
    assert await seal(fourth) == changed
    assert (await host.outcome("x = 3")).status == "ok"
    last = await taken(host)
    for _ in range(2):
        await host.call("POST", SEAL, json={"digest": last["digest"]})
    sealed = (409, "sealed")
    assert await refused(host, "PUT", "/v1/kernels/main/executions/late", {"code": "1"}) == sealed
    for path in (SNAPSHOT, "/v1/kernels/main/restart"):
        assert await refused(host, "POST", path, {}) == sealed
    with pytest.raises(Refused) as caught:
        await host.call("DELETE", SEAL)
    assert (caught.value.status, caught.value.code) == sealed
    assert ((await host.main())["pid"], (await host.main())["sealed"]) == (None, True)
    assert await get(host, last["variables"]["pickle"]["sha256"])


async def _through_websocket(host: Host, msg_type: str, content: dict[str, Any]) -> None:
    assert host.http
    headers = {"Authorization": f"Bearer {host.token()}"}
    header = {"msg_id": "m1", "msg_type": msg_type, "session": "s", "username": "", "version": "5.3"}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    async with host.http.ws_connect("http://host/v1/kernels/main/channels", headers=headers) as socket:
        await socket.send_json(message)
        async with asyncio.timeout(30):
            async for frame in socket:
                found = json.loads(frame.data)
                if found["parent_header"].get("msg_id") == "m1" and found["content"].get("execution_state") == "idle":
                    return


async def test_a_snapshot_is_restored_once_and_only_where_nothing_has_run(host: Host) -> None:
    await host.run("x = [1]")
    manifest = await taken(host)
    assert await refused(host, "POST", RESTORE, {"manifest": manifest}) == (409, "kernel_changed")
    await host.call("POST", "/v1/kernels/main/restart")
    reply = await host.call("POST", RESTORE, json={"manifest": manifest})
    assert reply == await host.call("POST", RESTORE, json={"manifest": manifest})
    assert await host.text("x.append(2); print(x)") == "[1, 2]\n"
    assert await refused(host, "POST", RESTORE, {"manifest": manifest}) == (409, "kernel_changed")
    assert await host.text("print(x)") == "[1, 2]\n"


async def test_contents_of_the_snapshot_before_are_removed(host: Host) -> None:
    await host.run("import numpy as np\nx = np.zeros(100_000)\ny = np.ones(100_000)")
    first = await taken(host)
    await host.run("x = np.full(100_000, 2.0)")
    second = await taken(host)
    kept = {path.name for path in (host.workspace / ".carrel/snapshots").iterdir()}
    assert kept == {blob["sha256"] for blob in (*second["variables"]["objects"], second["variables"]["pickle"])}
    assert {blob["sha256"] for blob in first["variables"]["objects"]} & kept
    await host.restart_program()
    await host.bind()
    assert list((host.workspace / ".carrel/snapshots").iterdir()) == []
    outcome = (await host.run("1"))[-1]
    assert isinstance(outcome, Finished)
