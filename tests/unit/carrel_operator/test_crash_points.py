"""An operator that is killed at any of its writes leaves nothing behind that the next one does not put right.

Plan: each way of a session (claimed from a pool, started cold, suspended, woken, deleted) and of a pool (refilled,
rolled over) is walked once undisturbed, and its writes are counted. Then it is walked again for each of them: the
operator is killed just before that write takes effect, or just after it, so that nobody hears the answer; another
process begins, which knows nothing but what the API server has. In the end everything is as it is after the
undisturbed walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pytest
from tests.support.timeless import Timeless
from tests.support.world import World

EGRESS = [{"cidr": "203.0.113.0/24", "ports": [443]}]


@dataclass(frozen=True)
class Walk:
    """What was there before, and what happens then."""

    before: tuple[Callable[[World], Any], ...]
    """One after the other, with rest between them."""
    then: Callable[[World], Any]


def a_class(world: World) -> None:
    world.make_class(isolation="Required", egress=EGRESS)


def a_session(world: World) -> None:
    world.make_session("desk", network={"egress": EGRESS}, tenant="research")


def used(world: World) -> None:
    assert world.use("desk")


def suspended(world: World) -> None:
    world.change_session("desk", operatingMode="Suspended")


def resumed(world: World) -> None:
    world.change_session("desk", operatingMode="Running")


def pool_of(replicas: int) -> Callable[[World], None]:
    return lambda world: world.make_pool(replicas, 2)


WALKS = {
    "claim": Walk((a_class, pool_of(2)), a_session),
    "cold start": Walk((a_class,), a_session),
    "persistent": Walk((a_class,), lambda world: world.make_session("desk", workspace={"type": "Persistent"})),
    "suspend": Walk((a_class, a_session, used), suspended),
    "wake": Walk((a_class, pool_of(1), a_session, used, suspended), resumed),
    "delete": Walk((a_class, pool_of(1), a_session, used), lambda world: world.delete_session("desk")),
    "refill": Walk((a_class,), pool_of(3)),
    "roll over": Walk((a_class, pool_of(3)), lambda world: world.make_class("b", isolation="Required", egress=EGRESS)),
    "lost pod": Walk(
        (a_class, pool_of(1), a_session, used), lambda world: world.kubelets.evict(world.pods_of("desk")[0])
    ),
}


def walk(walked: Walk, at: int | None = None, when: Literal["before", "after"] = "before") -> tuple[int, Any]:
    """Return how many writes the walk took, and what there is in the end."""

    async def go() -> tuple[int, Any]:
        world = World()
        for step in walked.before:
            step(world)
            await world.settle(200)
        before = world.writes
        if at is not None:
            world.kill_at(at, when)
        walked.then(world)
        await world.go_on(100)  # sweeps come later: they are walked by themselves
        taken = world.writes - before
        await world.settle()
        world.check_at_rest()
        await world.check_nothing_is_written()
        assert world.killed == (0 if at is None else 1) + 1  # and the look at the end
        return taken, world.picture()

    with Timeless() as loop:
        return loop.run(go())


WRITES = {
    "claim": 6,
    "cold start": 6,
    "persistent": 6,
    "suspend": 9,
    "wake": 5,
    "delete": 1,
    "refill": 5,
    "roll over": 11,
    "lost pod": 8,
}
"""How many writes each walk takes; counting them where tests are collected would take every worker seconds."""


@cache
def undisturbed(name: str) -> tuple[int, Any]:
    return walk(WALKS[name])


@pytest.mark.parametrize(
    ("name", "at", "when"),
    [
        pytest.param(name, at, when, id=f"{name}, {when} write {at} of {taken}")
        for name, taken in WRITES.items()
        for at in range(1, taken + 1)
        for when in ("before", "after")
    ],
)
def test_killed_at_this_write_everything_ends_as_if_undisturbed(name: str, at: int, when: Literal["before", "after"]):
    _, picture = walk(WALKS[name], at, when)
    assert picture == undisturbed(name)[1]


def test_every_write_of_every_walk_is_a_crash_point():
    assert {name: undisturbed(name)[0] for name in WALKS} == WRITES
