"""A pool that becomes smaller while sessions claim from it takes away only what is still its own.

Plan: what was decided on is claimed before it is done, by this process (which has heard of it, or is just at it) and by
another one (of which only the API server knows): the pod stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.timeless import Timeless
from tests.support.world import NAMESPACE, World

from carrel_api.session import AgentSession
from carrel_api.session_pool import SessionPool
from carrel_operator.builders.pod import claim_patch
from carrel_operator.observed import PodView
from carrel_operator.plan import DeletePod


def nothing(_world: World, _pod: PodView) -> None:
    """Nobody claims it."""


def claimed(world: World, pod: PodView) -> None:
    session = AgentSession.parse(world.server.get("AgentSession", "desk"))
    world.server.patch("Pod", pod.name, NAMESPACE, claim_patch(session, pod, world.now))


def claimed_unheard(world: World, pod: PodView) -> None:
    world.watch_is_late = True
    claimed(world, pod)


def reserved(world: World, pod: PodView) -> None:
    assert world.process.context.readiness.reserve(pod)


@pytest.mark.parametrize(
    ("meanwhile", "stays"), [(nothing, False), (claimed, True), (claimed_unheard, True), (reserved, True)]
)
def test_a_pod_that_a_session_took_meanwhile_is_left_alone(meanwhile: Callable[[World, PodView], Any], stays: bool):
    async def go() -> None:
        world = World()
        world.make_class()
        world.make_pool(1)
        await world.settle(10)
        [document] = world.server.all("Pod")
        pod = PodView.of(document)
        world.make_session("desk", operatingMode="Suspended")
        meanwhile(world, pod)
        pool = SessionPool.parse(world.server.get("SessionPool", "warm"))
        await world.process.worker._pools._take_away(pool, DeletePod(pod.name, pod.uid))
        after = world.server.get("Pod", pod.name)
        assert ("deletionTimestamp" not in after["metadata"]) is stays

    with Timeless() as loop:
        loop.run(go())
