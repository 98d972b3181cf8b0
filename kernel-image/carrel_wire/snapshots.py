"""Snapshots on the wire: what `…/snapshot` answers and `…/restore` takes. The format is docs/reference/snapshots.md.

A manifest names contents by their SHA-256 and carries none of them. It is data of a kernel, which is not trusted: sizes
and names are bounded here, contents are checked against their digests wherever they arrive.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

FORMAT: Final = "carrel.snapshot/1"
MAX_MANIFEST_BYTES: Final = 12 * 1024 * 1024
"""As JSON; below what a kernel host takes as a body."""
MAX_VARIABLES: Final = 50_000
MAX_BLOBS: Final = 100_000
MAX_PATH: Final = 4000

Digest: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal."""
Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Label: TypeAlias = Annotated[str, Meta(max_length=253)]
Reason: TypeAlias = Annotated[str, Meta(max_length=500)]
FilePath: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Blob(_Part, kw_only=True, frozen=True):
    """A content that lies elsewhere, under its digest."""

    sha256: Digest
    size: Bytes


class OpenObject(Blob, kw_only=True, frozen=True):
    """A value in a format of its own instead of the pickle."""

    codec: Literal["npy", "arrow"]


class ImportedModule(_Part, kw_only=True, frozen=True):
    """A variable that is a module, which is imported again."""

    name: Label
    module: Label


class SavedVariable(_Part, kw_only=True, frozen=True):
    """A variable whose value is in the pickle, in so many bytes of it."""

    name: Label
    type: Label
    bytes: Bytes


class Unsaved(_Part, kw_only=True, frozen=True):
    """What is not there, and why."""

    name: FilePath
    reason: Reason
    type: Label = ""


class Variables(_Part, kw_only=True, frozen=True):
    """The state of one kernel's process."""

    python: Annotated[str, Meta(max_length=40)]
    """Version, which must be the same up to the minor one where it is restored."""
    imports: Annotated[list[ImportedModule], Meta(max_length=MAX_VARIABLES)]
    variables: Annotated[list[SavedVariable], Meta(max_length=MAX_VARIABLES)]
    not_saved: Annotated[list[Unsaved], Meta(max_length=MAX_VARIABLES)]
    settings_bytes: Bytes
    """The first part of the pickle: working directory, import path, random numbers, matplotlib, sources of cells."""
    pickle: Blob
    objects: Annotated[list[OpenObject], Meta(max_length=MAX_BLOBS)]
    """By the number that the pickle has for them."""
    buffers: Annotated[list[Blob], Meta(max_length=MAX_BLOBS)]
    """Out-of-band buffers of pickle protocol 5, in their order."""
    seconds: float


class SavedFile(Blob, kw_only=True, frozen=True):
    """A regular file of the workspace."""

    path: FilePath
    mode: Annotated[int, Meta(ge=0, le=0o777)]


class SavedWorkspace(_Part, kw_only=True, frozen=True):
    """The files that the kernel works with."""

    files: list[SavedFile]
    folders: list[FilePath]
    """Those without files in them."""
    not_saved: list[Unsaved]


class Manifest(_Part, kw_only=True, frozen=True):
    """One snapshot."""

    format: Label
    session_uid: Label
    """Session of the host that it was taken in."""
    owner: Label
    """Its owner, as bind said; empty where bind did not."""
    kernel_id: Label
    incarnation: Label
    taken_at: float
    """Unix time in seconds."""
    variables: Variables
    workspace: SavedWorkspace
    digest: Annotated[str, Meta(max_length=64)] = ""
    """SHA-256 of the manifest as JSON without this field; it stands for the snapshot and all of its contents."""

    def with_digest(self) -> Manifest:
        """Return it with its digest."""
        return msgspec.structs.replace(self, digest=digest_of(self))

    @property
    def blobs(self) -> dict[str, int]:
        """Size of each content, by digest."""
        variables = self.variables
        found = (variables.pickle, *variables.objects, *variables.buffers, *self.workspace.files)
        return {blob.sha256: blob.size for blob in found}

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(self.blobs.values())

    @property
    def not_saved(self) -> list[Unsaved]:
        """Variables and files that are not in it."""
        return [*self.variables.not_saved, *self.workspace.not_saved]


def digest_of(manifest: Manifest) -> str:
    """Return what the manifest's digest must be."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(manifest, digest=""))).hexdigest()


class SnapshotRequest(_Part, kw_only=True, frozen=True):
    """`POST /v1/kernels/{kernel}/snapshot`."""

    timeout_seconds: Annotated[float, Meta(gt=0)] | None = None
    """At most the host's own limit, which holds when it is left out."""


class RestoreRequest(_Part, kw_only=True, frozen=True):
    """`POST /v1/kernels/{kernel}/restore`, and `POST /v1/snapshots/missing` before it."""

    manifest: Manifest
    timeout_seconds: Annotated[float, Meta(gt=0)] | None = None
    """As above."""
    keep_files: bool = False
    """Files that are in the workspace stay as they are, for they are newer than the snapshot."""


class MissingReply(_Part, kw_only=True, frozen=True):
    """Contents that must be put before a restore."""

    missing: list[Digest]


class RestoreReply(_Part, kw_only=True, frozen=True):
    """What is back, and what is not."""

    incarnation: Label
    restored: list[Label]
    """Names of variables."""
    not_restored: list[Unsaved]
    """Variables that are not back, those that were not saved included."""
    files: int
    """Files of the workspace that are as they were."""
    files_not_restored: list[Unsaved]


class SealRequest(_Part, kw_only=True, frozen=True):
    """`POST /v1/kernels/{kernel}/seal`."""

    digest: Digest
    """Of the last snapshot: nothing may have run since."""
