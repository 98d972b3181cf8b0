"""Kills at random while people work in sessions: the body of the soak run of the operator, and of its short form.

Struck are the operator's pods (killed, or made to stand still), its connections to the API server (cut), kernel pods
(deleted without grace, of sessions and of pools) and the kernel hosts in them (killed). The checks go over every
version of every object, as the API server told them: no session has two pods, no pod is two sessions', nothing is left
over, and people find what their snapshots held.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.bare.containers import pid_of, stopped
from tests.cluster.bare.layout import API, BRIDGE
from tests.cluster.bare.shell import ClusterError
from tests.cluster.operator.conftest import Deployed
from tests.cluster.operator.hosts import Hosts
from tests.cluster.operator.people import Person
from tests.cluster.operator.pools import Pool, Pools
from tests.cluster.operator.sessions import Sessions, eventually
from tests.cluster.operator.watching import History, watch
from tests.cluster.provider.base import Cluster

from carrel_api.names import SESSION_LABEL
from carrel_operator.builders.network_policy import DENY_POLICY, INGRESS_POLICY

GONE_SECONDS = 300.0
REPLICAS = 2
KEPT = 3
"""Pods of the pool."""


@dataclass
class Figures:
    """What a siege came to."""

    seconds: float = 0.0
    strikes: Counter[str] = field(default_factory=Counter[str])
    done: Counter[str] = field(default_factory=Counter[str])
    trouble: Counter[str] = field(default_factory=Counter[str])
    pods: int = 0

    @property
    def struck(self) -> int:
        """How many strikes met something."""
        return self.strikes.total() - self.strikes["nothing"]

    def rows(self) -> list[tuple[str, str]]:
        """Return them for people."""
        return [
            ("time under fire", f"{self.seconds:.0f} s"),
            ("strikes", _counts(self.strikes)),
            ("sessions", _counts(self.done)),
            ("kernel pods seen", str(self.pods)),
            ("calls of kernels that were tried again", _counts(self.trouble) or "none"),
            ("sessions with two pods, pods of two sessions, saved numbers lost", "none"),
            ("pods, policies and volumes left over", "none"),
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counter.most_common())


@dataclass
class Fire:
    """The ways in which things are struck."""

    cluster: Cluster
    pair: Deployed
    pods: History
    operators: History
    chance: random.Random

    async def strike(self) -> str:
        """Strike something, and return what it was."""
        ways: dict[Callable[[], str], int] = {
            self._kill_operator: 1,  # each time nobody leads for a quarter of a minute
            self._stop_operator: 2,
            self._cut: 2,
            self._delete_pod: 3,
            self._kill_host: 3,
        }
        (way,) = self.chance.choices(list(ways), weights=list(ways.values()))
        try:
            return await asyncio.to_thread(way)
        except (ClusterError, ProcessLookupError, LookupError):
            return "nothing"  # it has just gone by itself, or is not up yet

    def _some(self, history: History) -> dict[str, Any]:
        return self.chance.choice(sorted(history.present(), key=lambda one: one["metadata"]["name"]))

    def _some_operator(self) -> dict[str, Any]:
        """Return one of the replicas when both are ready: one at a time is struck, as a disruption budget has it."""
        ready = [pod for pod in self.operators.present() if _is_ready(pod)]
        if len(ready) < REPLICAS:
            raise LookupError("a replica is on its way")
        return self.chance.choice(sorted(ready, key=lambda one: one["metadata"]["name"]))

    def _kill_operator(self) -> str:
        pod = self._some_operator()
        pid = pid_of(pod)
        with stopped(pid):
            self._delete(pod, self.pair.control)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return "operator killed"

    def _stop_operator(self) -> str:
        with stopped(pid_of(self._some_operator())):
            time.sleep(self.chance.uniform(0.5, 4))
        return "operator stopped for a while"

    def _cut(self) -> str:
        """Reset each connection from one operator to the API server, and refuse new ones, for a moment."""
        address = self._some_operator()["status"]["podIP"]
        port = API.rpartition(":")[2]
        rule = ("INPUT", "-i", BRIDGE, "-s", address, "-p", "tcp", "--dport", port, "-j", "REJECT",
                "--reject-with", "tcp-reset")  # fmt: skip
        _iptables("-I", *rule)
        try:
            time.sleep(self.chance.uniform(0.5, 3))
        finally:
            _iptables("-D", *rule)
        return "connections cut"

    def _delete_pod(self) -> str:
        self._delete(self._some(self.pods), self.pair.sessions)
        return "kernel pod deleted"

    def _kill_host(self) -> str:
        os.kill(pid_of(self._some(self.pods)), signal.SIGKILL)
        return "kernel host killed"

    def _delete(self, pod: dict[str, Any], namespace: str) -> None:
        options = ("--grace-period=0", "--force", "--ignore-not-found", "--wait=false")
        self.cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", namespace, *options)


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _iptables(*words: str) -> None:
    subprocess.run(["iptables", "-w", *words], check=True, timeout=30)


async def besiege_operator(
    cluster: Cluster,
    pair: Deployed,
    pools: Pools,
    sessions: Sessions,
    hosts: Hosts,
    *,
    strikes: int,
    people: int,
    pause: tuple[float, float],
    seed: int,
    longest: float = 900.0,
) -> Figures:
    """Strike so many times, or for so many seconds, while people work; check all; return what it came to."""
    chance = random.Random(seed)
    pool = pools.create(replicas=KEPT, maxSurge=KEPT)
    pools.wait(pool.name, ready=KEPT)
    where = ("-n", pair.sessions)
    # The watches begin with what is there: a pool's pods, and a session that is made for it.
    first = sessions.create(className=pool.class_name)
    kernels = watch(cluster, "pods", *where, "--selector=carrel.dev/component=kernel")
    operators = watch(cluster, "pods", "-n", pair.control, "--selector=app.kubernetes.io/component=operator")
    figures, stop = Figures(), asyncio.Event()
    with kernels as pods, operators as own, watch(cluster, "agentsessions", *where) as seen:
        workers = [
            Person(sessions, seen, hosts, pool.class_name, random.Random(chance.random())) for _ in range(people)
        ]
        fire = Fire(cluster, pair, pods, own, chance)
        began = time.monotonic()
        async with asyncio.TaskGroup() as work:
            for worker in workers:
                work.create_task(worker.work(stop))
            while figures.struck < strikes and time.monotonic() - began < longest:
                await asyncio.sleep(chance.uniform(*pause))
                figures.strikes[await fire.strike()] += 1
                check_pods(pods)
            figures.seconds = time.monotonic() - began
            stop.set()
        await asyncio.to_thread(sessions.delete, first)
        await asyncio.to_thread(check_nothing_left, cluster, pair, pools, pool)
        check_pods(pods)
    for worker in workers:
        figures.done.update(worker.done)
        figures.trouble.update(worker.trouble)
    figures.pods = len({found["metadata"]["uid"] for _, found in pods.events})
    return figures


def check_pods(history: History) -> None:
    """Check every version of every pod: one session each, and one live pod for each session."""
    session_of: dict[str, str] = {}
    live: dict[str, str] = {}
    for kind, pod in list(history.events):
        uid, session = pod["metadata"]["uid"], pod["metadata"]["labels"].get(SESSION_LABEL)
        if session is None:
            assert uid not in session_of, f"pod {pod['metadata']['name']} is nobody's again"
            continue
        assert session_of.setdefault(uid, session) == session, f"pod {pod['metadata']['name']} is two sessions'"
        over = kind == "DELETED" or "deletionTimestamp" in pod["metadata"] or pod["status"]["phase"] == "Failed"
        if not over:
            assert live.setdefault(session, uid) == uid, f"pod {pod['metadata']['name']} is a second one of its session"
        elif live.get(session) == uid:
            del live[session]


def check_nothing_left(cluster: Cluster, pair: Deployed, pools: Pools, pool: Pool) -> None:
    """Wait until only the pool's pods and the namespace's policies are there."""
    where = ("-n", pair.sessions)

    def names(*what: str) -> set[str]:
        return set(cluster.kubectl("get", *what, *where, "-o=jsonpath={.items[*].metadata.name}").split())

    eventually("no session's pod is left", lambda: not names("pods", f"--selector={SESSION_LABEL}"), GONE_SECONDS)
    eventually("no volume is left", lambda: not names("pvc"), GONE_SECONDS)
    eventually("no policy is left", lambda: names("networkpolicies") == {DENY_POLICY, INGRESS_POLICY}, GONE_SECONDS)
    eventually("the pool is full", lambda: pools.status(pool.name).get("ready") == KEPT, GONE_SECONDS)
    assert pools.status(pool.name)["claimed"] == 0
    assert len(pools.pods(pool)) == KEPT
