"""Archives over HTTP, against the real host; the corpus of hostile ones is in `tests/unit/carrel_kernel`.

Plan
- A folder, by its name and by a link to it, and the whole workspace come as one archive: files as they are, links and
  what is no file left out; an upload of it is the same folder again, and no artifact.
- All or nothing: a bomb, a cut upload and a folder that is there change nothing, and the host goes on.
- A download whose files shrink is cut, and never looks whole.
- Nobody sees what is being unpacked under its name, and names lead nowhere else.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from tests.integration.kernel.host import Host, Refused, until

from carrel_wire.events import Artifact

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def host(lasting: Host) -> AsyncIterator[Host]:
    yield lasting
    await lasting.clean()


async def download(host: Host, path: str = "") -> dict[str, bytes]:
    async with host.request("GET", f"/v1/archives{path}") as reply:
        data = await reply.read()
        assert reply.status == 200, data
        assert "attachment" in reply.headers["Content-Disposition"]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert all(member.isreg() for member in archive)
        return {member.name: _content(archive, member) for member in archive}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file
    return file.read()


async def test_a_folder_goes_out_and_comes_back(host: Host) -> None:
    (host.folder / "secret").write_text("secret")
    big = os.urandom(3_000_000)
    for name, content in (("top", b"1"), ("results/a.txt", b"2"), ("results/sub/%C3%A4.bin", big)):
        await host.call("PUT", f"/v1/files/{name}", data=io.BytesIO(content))
    await host.text(
        f"import os\nos.symlink({str(host.folder / 'secret')!r}, 'results/link'); os.mkfifo('results/pipe')\n"
        "os.symlink('results', 'alias'); os.symlink('/etc', 'results/etc')\n"
        "os.mkdir('results/.carrel'); open('results/.carrel/mine', 'w').write('3')"
    )
    results = {"a.txt": b"2", "sub/ä.bin": big, ".carrel/mine": b"3"}
    assert await download(host, "/results") == await download(host, "/alias") == results
    assert await download(host) == {"top": b"1", **{f"results/{name}": content for name, content in results.items()}}
    async with host.request("GET", "/v1/archives/results") as reply:
        listed = await host.call("PUT", "/v1/archives/copies/first", data=io.BytesIO(await reply.read()))
    assert [item["path"] for item in listed["files"]] == [f"copies/first/{name}" for name in sorted(results)]
    assert await download(host, "/copies/first") == results
    events = await host.run("print(open('copies/first/a.txt').read())")
    assert not [event for event in events if isinstance(event, Artifact)]


@pytest.mark.parametrize("path", ["/none", "/top", "/out", "/.carrel", "/.carrel/tmp", "/%2e%2e", "/a%2f..%2f..", "/"])
async def test_what_is_no_folder_of_the_workspace_is_refused(host: Host, path: str) -> None:
    await host.text("import os\nopen('top', 'w').close(); os.symlink('/etc', 'out')")
    for method in ("GET", "PUT"):
        if (method, path) == ("PUT", "/none"):
            continue
        with pytest.raises(Refused) as refused:
            await host.call(method, f"/v1/archives{path}", data=zip_of({"a": b"x"}) if method == "PUT" else None)
        assert refused.value.status in (400, 404, 405, 409), (method, path, refused.value)
    assert sorted(path.name for path in host.workspace.iterdir()) == [".carrel", ".packages", "out", "top"]


def zip_of(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


async def test_all_or_nothing(host: Host) -> None:
    link = zipfile.ZipInfo("b")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a", b"x")
        archive.writestr(link, b"/etc")
    good = zip_of({"a/b": b"x" * 100_000})
    for body, status, code in (
        (data.getvalue(), 400, "archive_refused"),
        (zip_of({"a": b"x", "../b": b"y"}), 400, "archive_refused"),
        (good[:-30], 400, "archive_refused"),
        (zip_of({"zeros": bytes(60_000_000)}), 413, "too_large"),
    ):
        with pytest.raises(Refused) as refused:
            await host.call("PUT", "/v1/archives/new", data=body)
        assert (refused.value.status, refused.value.code) == (status, code)
    await host.call("PUT", "/v1/archives/new", data=good)
    with pytest.raises(Refused) as refused:
        await host.call("PUT", "/v1/archives/new", data=good)
    assert (refused.value.status, refused.value.code) == (409, "folder_exists")
    _, writer = await asyncio.open_unix_connection(str(host.socket))
    head = (
        f"PUT /v1/archives/cut HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {host.token()}\r\nContent-Length: 9999\r\n"
    )
    writer.write(head.encode() + b"\r\n" + good[:100])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await download(host) == {"new/a/b": b"x" * 100_000}
    temporary = host.workspace / ".carrel" / "tmp"
    await until(lambda: not list(temporary.iterdir()), what="an end of what was cut")


async def test_archives_have_the_limits_of_the_host(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--archive-bytes=100000", "--file-bytes=200000") as host:
        await host.bind()
        for content in (b"x" * 100_001, os.urandom(150_000), os.urandom(200_001)):
            with pytest.raises(Refused) as refused:
                await host.call("PUT", "/v1/archives/new", data=zip_of({"a": content}))
            assert (refused.value.status, refused.value.code) == (413, "too_large")
        await host.call("PUT", "/v1/archives/new", data=zip_of({"a": b"x" * 100_000}))
        assert await download(host, "/new") == {"a": b"x" * 100_000}
        await host.text("open('new/b', 'w').write('x')")
        with pytest.raises(Refused) as refused:
            await host.call("GET", "/v1/archives/new")
        assert (refused.value.status, refused.value.code) == (413, "too_large")


async def test_a_download_of_files_that_shrink_never_looks_whole(host: Host) -> None:
    """More than all buffers on the way hold, so that the host has not read it all when the file is cut."""
    await host.text("import os\nopen('f', 'wb').write(os.urandom(60_000_000))")
    async with host.request("GET", "/v1/archives") as reply:
        await reply.content.readexactly(100_000)
        assert await host.text("import os\nos.truncate('f', 1000)\nprint('cut')") == "cut\n"
        with pytest.raises(aiohttp.ClientError):
            await reply.read()
    assert await host.text("print('on')") == "on\n"
