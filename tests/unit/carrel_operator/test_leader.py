"""Leadership: who begins, who waits, who takes over, and that a holder that is cut off stops before another begins.

The lease lies in a dictionary with resource versions; a take-over on a real cluster is in tests/cluster/operator.
Times are short here; what is asserted is order and outcome, never how long something took at most.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from carrel_operator import leader
from carrel_operator.cluster import Cluster
from carrel_operator.errors import ApiConflict, ApiNotFound, ApiRefused, ApiUnavailable, LeaseLost
from carrel_operator.leader import Leadership
from carrel_operator.settings import Settings

DEADLINE = 30


class Leases:
    """An API server with one lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False
        self.refusals: list[Exception] = []
        """What the next looks raise."""
        self.fence: Callable[[], None] = lambda: None

    async def find(self, _kind: str, _name: str, _namespace: str) -> dict[str, Any] | None:
        if self.refusals:
            raise self.refusals.pop(0)
        if self.away:
            raise ApiUnavailable("away")
        return copy.deepcopy(self.lease)

    async def create(self, document: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise ApiConflict("exists")
        return self._store(document)

    async def replace(self, document: dict[str, Any]) -> dict[str, Any]:
        if self.lease is None or document["metadata"]["resourceVersion"] != str(self.version):
            raise ApiConflict("changed")
        return self._store(document)

    def _store(self, document: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(document)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        return self.lease["spec"]["holderIdentity"] if self.lease else ""


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"DURATION": 0.5, "RENEW": 0.02, "GIVE_UP": 0.2, "POLL": 0.02}.items():
        monkeypatch.setattr(leader, name, seconds)


@pytest.fixture
def leases() -> Leases:
    return Leases()


def replica(leases: Leases, name: str) -> Leadership:
    settings = Settings(operator_private_key_file=Path(), gateway_public_key_file=Path(), pod_name=name)
    return Leadership(cast("Cluster", leases), settings)


async def test_the_first_one_leads_and_the_second_waits_until_it_is_released(leases: Leases):
    async with asyncio.timeout(DEADLINE):
        first, second = replica(leases, "one"), replica(leases, "two")
        await first.acquire()
        keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
        version = leases.version
        while leases.version < version + 30:  # noqa: ASYNC110 (renewals are counted, not announced)
            await asyncio.sleep(0.01)
        assert (leases.holder, waiting.done()) == ("one", False)
        keeping.cancel()
        await first.release()
        await waiting
    assert leases.holder == "two"


async def test_a_lease_that_is_no_longer_renewed_is_taken(leases: Leases):
    async with asyncio.timeout(DEADLINE):
        await replica(leases, "dead").acquire()
        await replica(leases, "next").acquire()
    assert leases.holder == "next"
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 2


async def test_a_holder_whose_lease_was_taken_stops(leases: Leases):
    async with asyncio.timeout(DEADLINE):
        held = replica(leases, "one")
        await held.acquire()
        assert leases.lease is not None
        leases.lease["spec"]["holderIdentity"] = "two"
        with pytest.raises(LeaseLost, match="another replica"):
            await held.keep()


async def test_a_holder_that_is_cut_off_stops(leases: Leases):
    async with asyncio.timeout(DEADLINE):
        held = replica(leases, "one")
        await held.acquire()
        leases.away = True
        with pytest.raises(LeaseLost, match="could not be renewed in time"):
            await held.keep()


async def test_the_writes_of_a_holder_that_stood_still_are_fenced_until_it_has_renewed(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
):
    async with asyncio.timeout(DEADLINE):
        held = replica(leases, "one")
        monkeypatch.setattr(leader, "GIVE_UP", 600.0)
        await held.acquire()
        leases.fence()
        monkeypatch.setattr(leader, "GIVE_UP", 0.0)  # as if so much time had passed
        with pytest.raises(ApiUnavailable, match="may be another replica's"):
            leases.fence()
        monkeypatch.setattr(leader, "GIVE_UP", 600.0)
        keeping, version = asyncio.create_task(held.keep()), leases.version
        while leases.version == version:  # noqa: ASYNC110 (renewals are counted, not announced)
            await asyncio.sleep(0.01)
        leases.fence()
        keeping.cancel()


async def test_an_api_server_that_is_away_at_the_start_is_waited_for(leases: Leases):
    async with asyncio.timeout(DEADLINE):
        leases.away = True
        waiting = asyncio.create_task(replica(leases, "one").acquire())
        await asyncio.sleep(0)
        leases.away = False
        await waiting
    assert leases.holder == "one"


async def test_an_api_server_that_does_not_know_anybodys_rights_yet_is_waited_for(leases: Leases):
    leases.refusals = [ApiRefused("forbidden: RBAC is not loaded yet"), ApiRefused("forbidden")]
    async with asyncio.timeout(DEADLINE):
        await replica(leases, "one").acquire()
    assert leases.holder == "one"


async def test_a_namespace_that_is_missing_is_told(leases: Leases):
    leases.refusals = [ApiNotFound("no such namespace")]
    with pytest.raises(ApiNotFound):
        await replica(leases, "one").acquire()


async def test_a_restart_of_the_same_replica_leads_at_once(leases: Leases):
    async with asyncio.timeout(DEADLINE):
        await replica(leases, "one").acquire()
        await replica(leases, "one").acquire()
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1


async def test_releasing_what_another_holds_changes_nothing(leases: Leases):
    await replica(leases, "one").acquire()
    await replica(leases, "two").release()
    leases.away = True
    await replica(leases, "one").release()
    assert leases.holder == "one"
