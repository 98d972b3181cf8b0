"""Carries the contents of a snapshot from one host to another, as a gateway does."""

from __future__ import annotations

import io
from typing import Any

from tests.integration.kernel.host import Host, Refused


async def carry(here: Host, there: Host, manifest: dict[str, Any], **fields: Any) -> int:
    """Bring what is missing, and return how many contents that were."""
    missing = await there.call("POST", "/v1/snapshots/missing", json={"manifest": manifest, **fields})
    for digest in missing["missing"]:
        await put(there, digest, await get(here, digest))
    again = await there.call("POST", "/v1/snapshots/missing", json={"manifest": manifest, **fields})
    assert again["missing"] == []
    return len(missing["missing"])


async def get(host: Host, digest: str) -> bytes:
    async with host.request("GET", f"/v1/snapshots/blobs/{digest}") as reply:
        data = await reply.read()
        if reply.status >= 400:
            raise Refused(reply.status, await reply.json())
        return data


async def put(host: Host, digest: str, data: bytes) -> None:
    async with host.request("PUT", f"/v1/snapshots/blobs/{digest}", data=io.BytesIO(data)) as reply:
        if reply.status >= 400:
            raise Refused(reply.status, await reply.json())
