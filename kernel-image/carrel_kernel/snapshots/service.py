"""Takes, restores and seals: what is decided about snapshots on this host.

Whose a snapshot is, it says itself, with its session and owner; bind has said whose this host is, and which other
sessions' snapshots may come here. A manifest stands for all of its contents by digest, so no part can be another's.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog

from carrel_kernel.changes import Workspace
from carrel_kernel.errors import (
    AlreadyBound,
    BadRequest,
    BlobNotFound,
    BlobsMissing,
    HostError,
    KernelChanged,
    KernelUnavailable,
    SnapshotRefused,
    TooLarge,
    WrongDigest,
)
from carrel_kernel.kernel import Kernel
from carrel_kernel.metrics import Metrics
from carrel_kernel.snapshots.asking import Asking
from carrel_kernel.snapshots.blobs import Blobs
from carrel_kernel.snapshots.contents import Contents
from carrel_wire.host import BindRequest
from carrel_wire.snapshots import (
    FORMAT,
    MAX_MANIFEST_BYTES,
    Manifest,
    RestoreReply,
    SavedWorkspace,
    Variables,
    digest_of,
)

_SWEEP_SECONDS: Final = 60.0
_SHOWN: Final = 10
"""Missing contents that an error names."""

_log = structlog.get_logger(__name__)


class Snapshots:
    """The snapshots of one host."""

    def __init__(self, workspace: Workspace, metrics: Metrics, *, max_bytes: int, seconds: float) -> None:
        self.blobs = Blobs(workspace.private / "snapshots", 2 * max_bytes)  # of variables, and of files
        self._workspace = workspace
        self._metrics = metrics
        self._asking = Asking(workspace.root)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._contents = Contents(workspace, max_bytes)
        self._session_uid = ""
        self._owner = ""
        self._snapshots_of: frozenset[str] = frozenset()
        self._one_at_a_time = asyncio.Lock()
        self._swept = time.monotonic()
        self._latest: dict[str, tuple[Manifest, int]] = {}
        """By kernel: its last snapshot, and `Kernel.changes` then."""
        self._restored: dict[str, tuple[str, int, RestoreReply]] = {}
        """By kernel: the digest of what was restored, `Kernel.changes` then, and what was answered."""

    def bind(self, request: BindRequest) -> None:
        """Take note of whose this host is; what was left open may be said later.

        Raises
        ------
        AlreadyBound
            The owner is another one.
        """
        if self._owner and request.owner and request.owner != self._owner:
            raise AlreadyBound("the session has another owner; a host never changes its owner")
        self._session_uid = request.session_uid
        self._owner = request.owner or self._owner
        if request.owner:
            self._snapshots_of = frozenset(request.snapshots_of)

    # ------------------------------------------------------------------ taking

    async def take(self, kernel: Kernel, timeout_seconds: float | None) -> Manifest:
        """Save variables and workspace; executions wait meanwhile.

        Raises
        ------
        KernelBusy, KernelUnavailable, Sealed, DeadlineExceeded, TooLarge, DiskFull
        """
        with self._observed("taken", kernel) as told:
            await asyncio.to_thread(self._workspace.check_room)
            async with kernel.alone() as live, self._one_at_a_time:
                incarnation, changes = kernel.incarnation, kernel.changes
                folder = await asyncio.to_thread(self.blobs.folder_for_kernel)
                try:
                    variables = await self._asking.save(
                        kernel, live, folder, seconds=self._within(timeout_seconds), max_bytes=self._max_bytes
                    )
                    await asyncio.to_thread(self._adopt, folder, variables)
                finally:
                    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                saved = await asyncio.to_thread(self._contents.save)
                manifest = Manifest(
                    format=FORMAT,
                    session_uid=self._session_uid,
                    owner=self._owner,
                    kernel_id=kernel.id,
                    incarnation=incarnation,
                    taken_at=time.time(),
                    variables=variables,
                    workspace=saved,
                ).with_digest()
            if len(msgspec.json.encode(manifest)) > MAX_MANIFEST_BYTES:
                raise TooLarge("there are too many variables and files to name them all; delete what is not needed")
            before, self._latest[kernel.id] = self._latest.get(kernel.id), (manifest, changes)
            if before:
                unused = _contents_of(before[0].variables).keys() - self._kept()
                await asyncio.to_thread(self.blobs.remove, unused)
            told(manifest.size, complete=not (variables.not_saved or saved.not_saved))
        return manifest

    def _adopt(self, folder: Path, variables: Variables) -> None:
        try:
            self.blobs.adopt(folder, _contents_of(variables))
        except (BlobNotFound, WrongDigest) as error:
            raise KernelUnavailable("the kernel did not write what it said; restart it if this stays so") from error

    def _within(self, timeout_seconds: float | None) -> float:
        return min(timeout_seconds or self._seconds, self._seconds)

    def _kept(self) -> set[str]:
        """Contents of the last snapshots."""
        return {digest for manifest, _ in self._latest.values() for digest in _contents_of(manifest.variables)}

    def open(self, digest: str) -> BinaryIO:
        """Return a content of a snapshot. Blocks.

        Raises
        ------
        BlobNotFound
        """
        try:
            return self.blobs.open(digest)
        except BlobNotFound:
            return self._contents.open(digest)

    # ------------------------------------------------------------------ restoring

    async def missing(self, manifest: Manifest, *, keep_files: bool = False) -> list[str]:
        """Return which contents must be put before `restore`.

        Raises
        ------
        SnapshotRefused, BadRequest
        """
        self._check(manifest)
        workspace = await self._wanted(manifest, keep_files)
        return await asyncio.to_thread(self._missing, manifest, workspace)

    async def _wanted(self, manifest: Manifest, keep_files: bool) -> SavedWorkspace:
        """Return the files and folders that shall be as they were."""
        if not keep_files:
            return manifest.workspace
        return await asyncio.to_thread(self._contents.without_newer, manifest.workspace)

    def _missing(self, manifest: Manifest, workspace: SavedWorkspace) -> list[str]:
        wanted = {digest for digest in _contents_of(manifest.variables) if not self.blobs.has(digest)}
        return sorted(wanted | self._contents.missing(workspace, self.blobs))

    async def restore(
        self, kernel: Kernel, manifest: Manifest, timeout_seconds: float | None, *, keep_files: bool = False
    ) -> RestoreReply:
        """Bring files and variables back; executions wait meanwhile. Done once, if asked again before anything else.

        Parameters
        ----------
        keep_files
            Files that are there stay as they are: a container has ended, and its workspace has not.

        Raises
        ------
        SnapshotRefused, BadRequest, BlobsMissing, WrongDigest, KernelBusy, KernelUnavailable, Sealed, DeadlineExceeded
        KernelChanged
            Something has run in the kernel already.
        """
        with self._observed("restored", kernel) as told:
            self._check(manifest)
            described = _contents_of(manifest.variables)
            async with kernel.alone() as live, self._one_at_a_time:
                digest, changes, reply = self._restored.get(kernel.id, ("", 0, None))
                if reply and (digest, changes) == (manifest.digest, kernel.changes):
                    return reply
                if kernel.touched:
                    raise KernelChanged("something has run in the kernel already; restart it first")
                workspace = await self._wanted(manifest, keep_files)
                if absent := await asyncio.to_thread(self._missing, manifest, workspace):
                    raise BlobsMissing(
                        "contents of the snapshot are not here; put them first",
                        count=len(absent),
                        missing=absent[:_SHOWN],
                    )
                await asyncio.to_thread(self.blobs.check, described)
                refused = await self._contents.put(workspace, self.blobs, keep=described)
                kernel.changes += 1
                kernel.touched = True
                back = await self._asking.bring_back(
                    kernel, live, self.blobs.folder, manifest.variables, seconds=self._within(timeout_seconds)
                )
                await asyncio.to_thread(self.blobs.remove, described.keys() - self._kept())
                reply = RestoreReply(
                    incarnation=kernel.incarnation,
                    restored=back.restored,
                    not_restored=[*manifest.variables.not_saved, *back.not_restored],
                    files=len({file.path for file in workspace.files} - {item.name for item in refused}),
                    files_not_restored=[*manifest.workspace.not_saved, *refused],
                )
                self._restored[kernel.id] = (manifest.digest, kernel.changes, reply)
            told(manifest.size, complete=not (reply.not_restored or reply.files_not_restored))
        return reply

    def _check(self, manifest: Manifest) -> None:
        """Refuse a snapshot that is not this session's, or is not what it was.

        Raises
        ------
        BadRequest
            It has another format, or its digest is wrong.
        SnapshotRefused
        """
        if manifest.format != FORMAT:
            raise BadRequest(f"the snapshot has another format than {FORMAT!r}; restore it with a host that knows it")
        if manifest.digest != digest_of(manifest):
            raise SnapshotRefused("the manifest is not what its digest says")
        forked = manifest.session_uid in self._snapshots_of and manifest.owner == self._owner != ""
        own = manifest.session_uid == self._session_uid and manifest.owner in ("", self._owner)
        if not own and not forked:
            raise SnapshotRefused("the snapshot is of another session, and this one is no fork of it")

    # ------------------------------------------------------------------ sealing

    async def seal(self, kernel: Kernel, digest: str) -> None:
        """End a kernel whose state is what its last snapshot has.

        Raises
        ------
        KernelChanged
            Something has run since, or runs, or another snapshot is the last one.
        """
        if not kernel.sealed:
            latest = self._latest.get(kernel.id)
            if latest is None or latest[0].digest != digest or latest[1] != kernel.changes or kernel.busy:
                raise KernelChanged("the kernel has done something since that snapshot; take another one")
            await kernel.seal()
            _log.info("kernel_sealed", kernel=kernel.id)

    def unseal(self, kernel: Kernel) -> None:
        """Forget the last snapshot, so that the kernel cannot be sealed with it.

        Raises
        ------
        Sealed
            It is too late.
        """
        kernel.check_open()
        self._latest.pop(kernel.id, None)

    async def sweep(self) -> None:
        """Remove contents that nobody has used for a while, at most once in a minute."""
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            await asyncio.to_thread(self.blobs.sweep)

    @contextmanager
    def _observed(self, what: str, kernel: Kernel) -> Generator[_Told]:
        """Count and log how it goes; the block says how much it was."""
        began = time.monotonic()
        told = _Told()
        try:
            yield told
        except HostError as error:
            self._metrics.snapshots.labels(what, "failed").inc()
            _log.warning("snapshot_failed", what=what, kernel=kernel.id, code=error.code)
            raise
        seconds = time.monotonic() - began
        self._metrics.snapshots.labels(what, "complete" if told.complete else "partial").inc()
        self._metrics.snapshot_seconds.labels(what).observe(seconds)
        self._metrics.snapshot_bytes.labels(what).inc(told.size)
        _log.info(
            "snapshot_done", what=what, kernel=kernel.id, bytes=told.size, complete=told.complete, seconds=seconds
        )


class _Told:
    """What a block says of itself."""

    size = 0
    complete = True

    def __call__(self, size: int, *, complete: bool) -> None:
        self.size = size
        self.complete = complete


def _contents_of(variables: Variables) -> dict[str, int]:
    """Return the contents that a kernel needs, by digest."""
    return {blob.sha256: blob.size for blob in (variables.pickle, *variables.objects, *variables.buffers)}
