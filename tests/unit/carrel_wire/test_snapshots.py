"""Manifests: what is written is what is read, the digest stands for all of it, and sizes and names are bounded.

Plan
- Random manifests come back equal, and their digest does not depend on how they were carried.
- A change of any part changes the digest.
- What is no digest, no size, too long a name or an unknown field is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_wire.snapshots import (
    FORMAT,
    Blob,
    ImportedModule,
    Manifest,
    OpenObject,
    RestoreRequest,
    SavedFile,
    SavedVariable,
    SavedWorkspace,
    SnapshotRequest,
    Unsaved,
    Variables,
    digest_of,
)

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SIZES = st.integers(0, 2**53)
TEXTS = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=20)
BLOBS = st.builds(Blob, sha256=DIGESTS, size=SIZES)
OBJECTS = st.builds(OpenObject, sha256=DIGESTS, size=SIZES, codec=st.sampled_from(["npy", "arrow"]))
UNSAVED = st.lists(st.builds(Unsaved, name=NAMES, reason=TEXTS, type=TEXTS), max_size=2)
FILES = st.builds(SavedFile, sha256=DIGESTS, size=SIZES, path=NAMES, mode=st.integers(0, 0o777))
VARIABLES = st.builds(
    Variables,
    python=TEXTS,
    imports=st.lists(st.builds(ImportedModule, name=TEXTS, module=TEXTS), max_size=2),
    variables=st.lists(st.builds(SavedVariable, name=TEXTS, type=TEXTS, bytes=SIZES), max_size=2),
    not_saved=UNSAVED,
    settings_bytes=SIZES,
    pickle=BLOBS,
    objects=st.lists(OBJECTS, max_size=2),
    buffers=st.lists(BLOBS, max_size=2),
    seconds=st.floats(0, 100),
)
MANIFESTS = st.builds(
    Manifest,
    format=st.just(FORMAT),
    session_uid=TEXTS,
    owner=TEXTS,
    kernel_id=TEXTS,
    incarnation=TEXTS,
    taken_at=st.floats(0, 2e9),
    variables=VARIABLES,
    workspace=st.builds(
        SavedWorkspace, files=st.lists(FILES, max_size=3), folders=st.lists(NAMES, max_size=2), not_saved=UNSAVED
    ),
)


@settings(max_examples=50)
@given(MANIFESTS)
def test_manifests_come_back_equal_with_the_same_digest(manifest: Manifest) -> None:
    made = manifest.with_digest()
    assert made.digest == digest_of(made) == digest_of(manifest)
    carried = msgspec.json.decode(msgspec.json.encode(RestoreRequest(manifest=made)), type=RestoreRequest).manifest
    assert carried == made
    assert digest_of(carried) == made.digest
    contents = (made.variables.pickle, *made.variables.objects, *made.variables.buffers, *made.workspace.files)
    assert made.blobs.keys() == {blob.sha256 for blob in contents}


@settings(max_examples=50)
@given(MANIFESTS, MANIFESTS)
def test_another_manifest_has_another_digest(one: Manifest, other: Manifest) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (Blob, {"sha256": "A" * 64, "size": 1}),
        (Blob, {"sha256": "0" * 63, "size": 1}),
        (Blob, {"sha256": "../" + "0" * 61, "size": 1}),
        (Blob, {"sha256": "0" * 64, "size": -1}),
        (Blob, {"sha256": "0" * 64, "size": 1, "more": 1}),
        (OpenObject, {"sha256": "0" * 64, "size": 1, "codec": "pickle"}),
        (SavedFile, {"sha256": "0" * 64, "size": 1, "path": "", "mode": 0}),
        (SavedFile, {"sha256": "0" * 64, "size": 1, "path": "x" * 4001, "mode": 0}),
        (SavedFile, {"sha256": "0" * 64, "size": 1, "path": "x", "mode": 0o4755}),
        (ImportedModule, {"name": "x" * 254, "module": "os"}),
        (SnapshotRequest, {"timeout_seconds": 0}),
        (SnapshotRequest, {"timeout": 1}),
    ],
)
def test_what_is_out_of_bounds_is_refused(kind: type[Any], document: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(document), type=kind)
