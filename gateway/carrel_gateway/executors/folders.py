"""The folders of the local executor: workspaces, sockets, records of hosts; and who owns them.

Sockets lie apart from workspaces, because an address of a Unix socket has at most 107 bytes: in the data folder when it
is short enough, else below the system's folder for temporary files, private to the user.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from carrel_gateway.errors import Unavailable

MAX_SOCKET_PATH_BYTES: Final = 107
"""`sun_path` has 108 bytes with the final NUL; macOS allows four fewer, which the margin below covers."""
_MARGIN_BYTES: Final = 8
_SESSION_NAME_LENGTH: Final = 32
SOCKET_NAME: Final = "k.sock"


@dataclass(frozen=True, slots=True)
class Account:
    """User and group that kernel hosts run as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the hosts of one data folder live. `account` is none when they run as the gateway's own user."""

    data: Path
    runtime: Path
    account: Account | None

    @classmethod
    def make(cls, data_dir: Path, account: Account | None) -> Folders:
        """Make what all sessions share; blocking.

        Raises
        ------
        Unavailable
            The folder for sockets belongs to somebody else.
        """
        # With an account of their own, hosts must pass through, and may list nothing.
        passage = 0o711 if account else 0o700
        data_dir.mkdir(parents=True, exist_ok=True, mode=passage)
        data_dir.chmod(passage)
        folders = cls(data_dir, _runtime(data_dir, passage), account)
        for folder, mode in ((folders.hosts, 0o700), (folders.workspaces, passage)):
            folder.mkdir(exist_ok=True, mode=mode)
            folder.chmod(mode)
        folders.give(folders.home, mode=0o700)
        if account:
            _close_to_others(data_dir, keep={"workspaces", "home", "run"})
        return folders

    @property
    def hosts(self) -> Path:
        """Records and logs of hosts; the gateway's alone."""
        return self.data / "hosts"

    @property
    def workspaces(self) -> Path:
        """One folder per session."""
        return self.data / "workspaces"

    @property
    def home(self) -> Path:
        """HOME of all kernels: caches of matplotlib and the like are made once, not per session."""
        return self.data / "home"

    @property
    def keys(self) -> Path:
        """The key set that hosts trust; they may read it and not write it."""
        return self.runtime / "keys.json"

    def workspace(self, session_id: UUID) -> Path:
        """Folder of the session's files."""
        return self.workspaces / str(session_id)

    def sockets(self, host_id: str) -> Path:
        """Folder of a host's socket; the id is a UUID."""
        return self.runtime / host_id.replace("-", "")

    def give(self, folder: Path, *, mode: int) -> None:
        """Make the folder, with its owner the account of the hosts."""
        folder.mkdir(exist_ok=True, mode=mode)
        if self.account and folder.stat().st_uid != self.account.uid:
            for root, _, names in os.walk(folder):  # of an earlier run as another user; never follows links
                for path in (root, *(os.path.join(root, name) for name in names)):  # noqa: PTH118  as os.walk gives them
                    os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)
        folder.chmod(mode)

    def remove_sockets(self, host_id: str) -> None:
        """Remove the folder of a host's socket; blocking."""
        shutil.rmtree(self.sockets(host_id), ignore_errors=True)

    def untouched(self, seconds: float) -> list[UUID]:
        """Return the sessions in whose workspace no name came or went for so long; blocking."""
        before, found = time.time() - seconds, list[UUID]()
        for folder in self.workspaces.iterdir():
            with suppress(ValueError, OSError):  # not one of a session, or gone meanwhile
                if folder.lstat().st_mtime < before:
                    found.append(UUID(folder.name))
        return found

    def remove(self, session_id: UUID) -> None:
        """Remove the session's workspace and log; blocking."""
        shutil.rmtree(self.workspace(session_id), ignore_errors=True)
        (self.hosts / f"{session_id}.log").unlink(missing_ok=True)


def _runtime(data_dir: Path, mode: int) -> Path:
    longest = MAX_SOCKET_PATH_BYTES - _MARGIN_BYTES - _SESSION_NAME_LENGTH - len(SOCKET_NAME) - 2
    folder = data_dir / "run"
    if len(os.fsencode(folder)) > longest:
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:10]
        folder = Path(tempfile.gettempdir()) / f"carrel-{os.getuid()}-{digest}"
    if len(os.fsencode(folder)) > longest:
        raise Unavailable(
            "The folder for temporary files has too long a path for sockets; set TMPDIR to a shorter one."
        )
    folder.mkdir(exist_ok=True, mode=mode)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():  # somebody put it there to look at our sockets
        raise Unavailable("The folder for sockets belongs to another user; remove it or set TMPDIR to another folder.")
    folder.chmod(mode)
    return folder


def _close_to_others(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
