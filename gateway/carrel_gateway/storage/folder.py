"""The lock on the data folder: an embedded database belongs to one process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from carrel_gateway.errors import CarrelError

LOCK_FILE: Final = "carrel.lock"


class DataFolderInUse(CarrelError):
    """Another process has the data folder."""

    code = "data_folder_in_use"


class DataFolderUnusable(CarrelError):
    """The data folder cannot be made or written to."""

    code = "data_folder_unusable"


class FolderLock:
    """An exclusive lock, held until it is released or the process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises
        ------
        DataFolderInUse
            Another process has it.
        DataFolderUnusable
            The folder cannot be used at all.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle: int | None = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataFolderUnusable(
                f"cannot use the data folder {folder}: {error.strerror}; set CARREL_DATA_DIR to another one"
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise DataFolderInUse(
                f"the data folder {folder} is in use by another Carrel process{f' ({owner})' if owner else ''}; "
                "stop that one, or set CARREL_DATA_DIR to another folder"
            ) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"pid {os.getpid()}".encode(), 0)

    def release(self) -> None:
        """Give the folder back; nothing happens the second time."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
