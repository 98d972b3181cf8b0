"""Folders of the local executor.

Plan: what is the gateway's alone is closed to others; sockets of a data folder with a long path fit into 107 bytes; a
folder for sockets that somebody else put there is refused; removing a session removes its files and follows no link.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from carrel_gateway.errors import Unavailable
from carrel_gateway.executors.folders import MAX_SOCKET_PATH_BYTES, SOCKET_NAME, Account, Folders


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_is_private(tmp_path: Path):
    folders = Folders.make(tmp_path / "data", None)
    for folder in (folders.data, folders.hosts, folders.workspaces, folders.home, folders.runtime):
        assert mode(folder) == 0o700, folder


def test_sockets_fit_however_long_the_data_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(prefix="c"))
    long = tmp_path / ("x" * 100)
    folders = Folders.make(long, None)
    socket = folders.sockets(str(uuid4())) / SOCKET_NAME
    assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
    assert not folders.runtime.is_relative_to(long)
    assert Folders.make(long, None).runtime == folders.runtime
    assert Folders.make(tmp_path / ("y" * 100), None).runtime != folders.runtime


def test_a_link_in_place_of_the_folder_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = Path(tempfile.mkdtemp(prefix="c"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    runtime = Folders.make(tmp_path / ("x" * 100), None).runtime
    runtime.rmdir()
    runtime.symlink_to(tmp_path)
    with pytest.raises(Unavailable, match="another user"):
        Folders.make(tmp_path / ("x" * 100), None)


def test_a_removed_session_leaves_nothing_and_links_are_not_followed(tmp_path: Path):
    folders, session, precious = Folders.make(tmp_path / "data", None), uuid4(), tmp_path / "precious"
    precious.mkdir()
    folders.give(folders.workspace(session), mode=0o700)
    (folders.workspace(session) / "link").symlink_to(precious)
    folders.remove(session)
    assert not folders.workspace(session).exists()
    assert precious.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_with_an_account_of_their_own_hosts_pass_through_and_see_nothing_else(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "carrel.db").write_text("secret")
    (data / "keys").mkdir()
    folders = Folders.make(data, Account(65534, 65534))
    workspace = folders.workspace(uuid4())
    folders.give(workspace, mode=0o700)
    assert workspace.stat().st_uid == 65534
    assert mode(data) == mode(folders.workspaces) == mode(folders.runtime) == 0o711
    assert mode(data / "carrel.db") & 0o077 == 0
    assert mode(data / "keys") & 0o077 == 0
    assert mode(folders.hosts) == 0o700
