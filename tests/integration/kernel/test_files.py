"""Files and changes of the workspace, against the real host.

Plan
- Writing, reading, listing, deleting; replaced whole or not at all; parents are made.
- Parts by `Range`, resumed only while the content is the same; `HEAD`.
- Uploads of one name at the same time: each reader sees one of them whole, and the last one that was complete stays;
  neither they nor a deletion are taken for something that code made.
- Confinement: a table of names that lead outside, in every spelling, and links that do; links inside are followed.
- Things that are no files: folders, pipes, devices.
- Limits: a file over the limit, with and without a declared length.
- Changes by cursor.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host, Refused

from carrel_wire.events import Artifact

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def host(lasting: Host) -> AsyncIterator[Host]:
    yield lasting
    await lasting.clean()


OUTSIDE = [
    "..",
    "../x",
    "%2e%2e/x",
    "..%2fx",
    "a/../../x",
    "a/%2e%2e/%2e%2e/x",
    "%2fetc/passwd",
    "/etc/passwd",
    "a//b",
    "a/./b",
    "./a",
    "a/",
    "..%5cx",
    "a%5cb",
    "a%00b",
    "a%0ab",
    "%ff%fe",
    "x" * 256,
    "/".join(["long"] * 1000),
    ".carrel/spool/x",
    ".carrel/overflow/../acknowledged",
    ".carrel",
    ".carrel/acknowledged",
]


async def test_files_come_and_go(host: Host) -> None:
    big = os.urandom(3_000_000)
    for name, data in (("a.txt", b"one"), ("sub/deep/ä b%.bin", big), ("a.txt", b"two")):
        info = await host.call("PUT", f"/v1/files/{quote(name)}", data=io.BytesIO(data))
        assert (info["path"], info["size"]) == (name, len(data))
    async with host.request("GET", "/v1/files/sub/deep/%C3%A4%20b%25.bin") as reply:
        assert await reply.read() == big
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "attachment" in reply.headers["Content-Disposition"]
    listed = (await host.call("GET", "/v1/files"))["files"]
    assert [(item["path"], item["size"]) for item in listed] == [("a.txt", 3), ("sub/deep/ä b%.bin", 3_000_000)]
    assert await host.text("print(open('a.txt').read())") == "two\n"
    await host.call("DELETE", "/v1/files/a.txt")
    for method in ("GET", "DELETE"):
        with pytest.raises(Refused) as refused:
            await host.call(method, "/v1/files/a.txt")
        assert (refused.value.status, refused.value.code) == (404, "file_not_found")


async def test_parts_and_heads(host: Host) -> None:
    data = os.urandom(1_000_000)
    await host.call("PUT", "/v1/files/f", data=data)
    for header, wanted in (
        ("bytes=0-0", data[:1]),
        ("bytes=10-600009", data[10:600_010]),
        ("bytes=999990-", data[-10:]),
        ("bytes=-300000", data[-300_000:]),
        ("bytes=5-99999999", data[5:]),
    ):
        async with host.request("GET", "/v1/files/f", headers={"Range": header}) as reply:
            assert reply.status == 206
            assert await reply.read() == wanted
            assert reply.headers["Content-Range"].endswith("/1000000")
            etag = reply.headers["ETag"]
    for headers in ({"Range": "bytes=0-1,5-6"}, {"Range": "lines=1-2"}, {"Range": "bytes=1-2", "If-Range": '"other"'}):
        async with host.request("GET", "/v1/files/f", headers=headers) as reply:
            assert reply.status == 200
            assert await reply.read() == data
            assert reply.headers["Accept-Ranges"] == "bytes"
    async with host.request("GET", "/v1/files/f", headers={"Range": "bytes=1000000-"}) as reply:
        assert reply.status == 416
        assert (await reply.json())["code"] == "range_not_satisfiable"
        assert reply.headers["Content-Range"] == "bytes */1000000"
    async with host.request("HEAD", "/v1/files/f", headers={"Range": "bytes=0-1"}) as reply:
        assert (reply.status, await reply.read()) == (200, b"")
        assert reply.headers["Content-Length"] == "1000000"
        assert reply.headers["ETag"] == etag
    async with host.request("HEAD", "/v1/files/none") as reply:
        assert reply.status == 404


async def test_a_download_is_resumed_only_while_the_content_is_the_same(host: Host) -> None:
    await host.call("PUT", "/v1/files/f", data=b"a" * 100)
    async with host.request("GET", "/v1/files/f", headers={"Range": "bytes=0-49"}) as reply:
        known = reply.headers["ETag"]
    resume = {"Range": "bytes=50-", "If-Range": known}
    async with host.request("GET", "/v1/files/f", headers=resume) as reply:
        assert (reply.status, await reply.read()) == (206, b"a" * 50)
    await host.call("PUT", "/v1/files/f", data=b"b" * 100)
    async with host.request("GET", "/v1/files/f", headers=resume) as reply:
        assert (reply.status, await reply.read()) == (200, b"b" * 100)
        known = reply.headers["ETag"]
    await host.text("import os\nopen('f', 'r+').write('c'); os.utime('f', (0, 0))")
    async with host.request("GET", "/v1/files/f", headers={**resume, "If-Range": known}) as reply:
        assert (reply.status, await reply.read()) == (200, b"c" + b"b" * 99)


async def test_uploads_of_one_name_at_once_do_not_collide(host: Host) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    begun = [asyncio.Event() for _ in range(4)]

    async def upload(number: int) -> None:
        async def halves():
            yield bytes([number]) * 300_000
            begun[number].set()
            await gates[number].wait()
            yield bytes([number]) * 300_000

        await host.call("PUT", "/v1/files/f", data=halves())

    async with asyncio.TaskGroup() as group:
        uploads = [group.create_task(upload(number)) for number in range(4)]
        for each in begun:
            await each.wait()
        with pytest.raises(Refused) as refused:
            await host.call("GET", "/v1/files/f")
        assert refused.value.status == 404  # nothing half-written is there
        for number in (2, 0, 3, 1):
            gates[number].set()
            await uploads[number]
            async with host.request("GET", "/v1/files/f") as reply:
                assert await reply.read() == bytes([number]) * 600_000
    assert not [event for event in await host.run("1") if isinstance(event, Artifact)]


async def test_readers_see_whole_files_while_they_are_replaced(host: Host) -> None:
    await host.call("PUT", "/v1/files/f", data=b"0" * 400_000)

    async def replace(digit: str) -> None:
        for _ in range(15):
            await host.call("PUT", "/v1/files/f", data=digit.encode() * 400_000)

    async def read() -> None:
        for _ in range(40):
            async with host.request("GET", "/v1/files/f") as reply:
                data = await reply.read()
            assert len(data) == 400_000
            assert len(set(data)) == 1

    await asyncio.gather(replace("1"), replace("2"), read(), read())
    assert not [event for event in await host.run("1") if isinstance(event, Artifact)]


async def test_a_deleted_file_does_not_come_back(host: Host) -> None:
    """Not by an upload that was complete before, nor with the next cell's files."""
    cursor = (await host.call("GET", "/v1/changes"))["cursor"]
    await host.run("open('made', 'w').write('1')")
    await host.call("PUT", "/v1/files/sent", data=b"1")
    for name in ("made", "sent"):
        await host.call("DELETE", f"/v1/files/{name}")
    events = await host.run("import os\nprint(os.listdir())")
    assert not [event for event in events if isinstance(event, Artifact)]
    assert (await host.call("GET", "/v1/files"))["files"] == []
    assert (await host.call("GET", "/v1/changes", params={"since": cursor}))["changes"] == []


async def test_names_that_lead_outside_are_refused(host: Host) -> None:
    (host.workspace / "a").mkdir()
    (host.folder / "x").write_text("outside")
    before = _tree(host.folder)
    for name in OUTSIDE:
        for method in ("GET", "PUT", "DELETE"):
            status = await _raw(host, method, name)
            assert status in (400, 404), (method, name, status)
    assert _tree(host.folder) == before


def _tree(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.match("*.log") and path.name != "tmp"
    )


async def _raw(host: Host, method: str, name: str) -> int:
    """Send the name exactly as it is: clients tidy paths up before they send them."""
    reader, writer = await asyncio.open_unix_connection(str(host.socket))
    head = f"{method} /v1/files/{name} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {host.token()}\r\n"
    writer.write(f"{head}Content-Length: 1\r\nConnection: close\r\n\r\nx".encode())
    await writer.drain()
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_links_are_followed_inside_only(host: Host) -> None:
    (host.folder / "secret").write_text("secret")
    (host.folder / "outside").mkdir()
    await host.run(
        "import os\nos.makedirs('real'); open('real/in.txt', 'w').write('in')\n"
        "os.symlink('real', 'inside'); os.symlink('real/in.txt', 'file')\n"
        f"os.symlink({str(host.folder / 'secret')!r}, 'out'); os.symlink({str(host.folder / 'outside')!r}, 'away')\n"
        "os.symlink('/proc/self/environ', 'environ'); os.symlink('loop', 'loop')\n"
        "os.symlink('.carrel', 'private'); os.symlink('/', 'root')"
    )
    for name in ("inside/in.txt", "file"):
        async with host.request("GET", f"/v1/files/{name}") as reply:
            assert await reply.read() == b"in"
    for method, name in (
        ("GET", "out"),
        ("PUT", "out"),
        ("GET", "environ"),
        ("GET", "loop"),
        ("PUT", "away/new"),
        ("DELETE", "away/new"),
        ("GET", "private/acknowledged"),
        ("PUT", "private/x"),
        ("DELETE", "private/acknowledged"),
        ("GET", "root/etc/passwd"),
        ("PUT", "root/tmp/x"),
    ):
        with pytest.raises(Refused) as refused:
            await host.call(method, f"/v1/files/{name}", data=b"x" if method == "PUT" else None)
        assert refused.value.status in (400, 404), (method, name)
    assert (host.folder / "secret").read_text() == "secret"
    assert list((host.folder / "outside").iterdir()) == []
    await host.call("DELETE", "/v1/files/out")  # the link itself is the workspace's
    assert (host.folder / "secret").exists()
    assert [item["path"] for item in (await host.call("GET", "/v1/files"))["files"]] == ["real/in.txt"]


async def test_what_is_no_file_is_refused_and_does_not_hang(host: Host) -> None:
    await host.run("import os\nos.mkdir('folder'); os.mkfifo('pipe'); open('plain', 'w').close()")
    for method, name in (
        ("GET", "folder"),
        ("GET", "pipe"),
        ("PUT", "folder"),
        ("DELETE", "folder"),
        ("PUT", "plain/below"),
        ("GET", "plain/below"),
    ):
        with pytest.raises(Refused) as refused:
            await host.call(method, f"/v1/files/{name}", data=b"x" if method == "PUT" else None)
        assert refused.value.status in (400, 404), (method, name)


async def test_a_file_over_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def chunks():
        for _ in range(20):
            yield b"x" * 100_000

    async with Host.running(tmp_path, "--file-bytes=1000000") as host:
        await host.bind()
        await host.call("PUT", "/v1/files/f", data=b"before")
        for data in (io.BytesIO(b"x" * 1_000_001), chunks()):
            with pytest.raises(Refused) as refused:
                await host.call("PUT", "/v1/files/f", data=data)
            assert (refused.value.status, refused.value.code) == (413, "too_large")
        assert (host.workspace / "f").read_bytes() == b"before"
        assert list((host.workspace / ".carrel" / "tmp").iterdir()) == []
        await host.call("PUT", "/v1/files/f", data=b"x" * 1_000_000)


async def test_a_cut_upload_leaves_the_old_file(host: Host) -> None:
    await host.call("PUT", "/v1/files/f", data=b"before")
    _, writer = await asyncio.open_unix_connection(str(host.socket))
    head = (
        f"PUT /v1/files/f HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {host.token()}\r\nContent-Length: 1000\r\n\r\n"
    )
    writer.write(head.encode() + b"part")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await host.call("PUT", "/v1/files/g", data=b"")  # the host goes on
    assert (host.workspace / "f").read_bytes() == b"before"


async def test_changes_come_by_cursor(host: Host) -> None:
    await host.run("open('a', 'w').write('1'); open('b', 'w').write('2')")
    first = await host.call("GET", "/v1/changes")
    assert [(item["path"], item["kind"]) for item in first["changes"]] == [("a", "created"), ("b", "created")]
    await host.run("import os; open('a', 'w').write('changed'); os.remove('b'); open('c', 'w').close()")
    second = await host.call("GET", "/v1/changes", params={"since": first["cursor"]})
    changes = [(item["path"], item["kind"], item["size"]) for item in second["changes"]]
    assert changes == [("a", "modified", 7), ("b", "deleted", 0), ("c", "created", 0)]
    assert (await host.call("GET", "/v1/changes", params={"since": second["cursor"]}))["changes"] == []
    again = await host.call("GET", "/v1/changes", params={"since": first["cursor"]})  # a cursor can be used twice
    assert again["changes"] == second["changes"]
    with pytest.raises(Refused) as refused:
        await host.call("GET", "/v1/changes", params={"since": "unknown"})
    assert (refused.value.status, refused.value.code) == (400, "bad_request")


async def test_a_workspace_that_code_emptied_is_made_usable_again(host: Host) -> None:
    assert await host.text("import shutil; shutil.rmtree('.carrel'); print('gone')") == "gone\n"
    assert await host.text("print('on')") == "on\n"
    await host.call("PUT", "/v1/files/f", data=b"x")
    assert await host.text("print(open('f').read())") == "x\n"
