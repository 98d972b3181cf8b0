"""Which replica writes: the holder of a Lease, as in client-go's leader election (coordination.k8s.io/v1).

Times of other machines are not compared with this one's clock: a lease is free when its record did not change for
its duration as measured here.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import structlog

from carrel_operator.cluster import Cluster, Document
from carrel_operator.errors import ApiConflict, ApiError, ApiNotFound, ApiUnavailable, LeaseLost
from carrel_operator.settings import Settings

logger = structlog.get_logger(__name__)

DURATION: Final = 12.0
"""Seconds without renewal after which another replica may take over; with two polls of its own that is below 15."""
RENEW: Final = 3.0
GIVE_UP: Final = 9.0
"""Seconds without a successful renewal after which the holder stops: before anybody else may begin."""
POLL: Final = 1.0
RELEASE: Final = 5.0
"""Seconds; a process that ends does not wait longer for an API server that is away."""


class Leadership:
    """One replica's part in the election."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._seen: tuple[str, float] = ("", 0.0)
        """Version of another's record, and when it was first seen."""
        self._renewed = float("-inf")
        """When the last record that was taken was sent: nobody counts its duration from an earlier moment."""

    async def acquire(self) -> None:
        """Wait until this replica is the leader, also for an API server that is away or refuses for now.

        From then on its writes are fenced by `check`.

        Raises
        ------
        ApiNotFound
            There is no such namespace.
        """
        while True:
            try:
                if await self._try():
                    break
            except ApiNotFound:
                raise
            except ApiError as error:
                logger.warning("cannot ask for the lease", error=str(error))
            await asyncio.sleep(POLL)
        self._cluster.fence = self.check
        logger.info("leader", identity=self._settings.pod_name)

    async def keep(self) -> NoReturn:
        """Stay the leader.

        Raises
        ------
        LeaseLost
            Another one is, or the lease could not be renewed in time.
        """
        while True:
            await asyncio.sleep(RENEW)
            try:
                async with asyncio.timeout(GIVE_UP - (time.monotonic() - self._renewed)):
                    held = await self._try()
            except (ApiError, TimeoutError) as error:
                held = None
                logger.warning("the lease could not be renewed", error=str(error) or "no answer in time")
            if held is False:
                raise LeaseLost("another replica holds the lease")
            if not held and time.monotonic() - self._renewed >= GIVE_UP - RENEW:
                raise LeaseLost("the lease could not be renewed in time")

    def check(self) -> None:
        """Let a write pass while nobody else can hold the lease.

        A process that stood still goes on where it was, before its own clock tells it that it is late.

        Raises
        ------
        ApiUnavailable
            The lease was not renewed in time.
        """
        if time.monotonic() - self._renewed >= GIVE_UP:
            raise ApiUnavailable("nothing is written: the lease was not renewed in time, and may be another replica's")

    async def release(self) -> None:
        """Let the next replica begin at once; nothing happens where this one does not hold the lease."""
        try:
            async with asyncio.timeout(RELEASE):
                lease = await self._find()
                if lease is not None and lease["spec"].get("holderIdentity") == self._settings.pod_name:
                    lease["spec"]["holderIdentity"] = ""
                    await self._cluster.replace(lease)
        except (ApiError, TimeoutError) as error:
            logger.info("the lease runs out by itself", error=str(error))

    async def _try(self) -> bool:
        """Take or renew the lease; return whether this replica holds it now."""
        lease = await self._find()
        if lease is not None and not self._free(lease):
            return False
        began = time.monotonic()
        try:
            if lease is None:
                await self._cluster.create(self._lease())
            else:
                await self._cluster.replace({**lease, "spec": {**lease["spec"], **self._record(lease["spec"])}})
        except ApiConflict:
            return False
        self._renewed = began
        return True

    def _free(self, lease: Document) -> bool:
        holder, version = lease["spec"].get("holderIdentity"), lease["metadata"]["resourceVersion"]
        if not holder or holder == self._settings.pod_name:
            return True
        if self._seen[0] != version:
            self._seen = (version, time.monotonic())
        return time.monotonic() - self._seen[1] > DURATION

    async def _find(self) -> Document | None:
        return await self._cluster.find("Lease", self._settings.lease_name, self._settings.namespace)

    def _lease(self) -> Document:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._settings.lease_name, "namespace": self._settings.namespace},
            "spec": self._record({}),
        }

    def _record(self, before: dict[str, Any]) -> Document:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.get("holderIdentity") == self._settings.pod_name
        return {
            "holderIdentity": self._settings.pod_name,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": now,
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if mine else 1),
        }
