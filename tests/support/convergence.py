"""Whatever happens to sessions, pools, pods, the watch and the operator, in any order: a Hypothesis state machine.

After each step holds what must always hold (`World.check`: no pod is ever of two sessions, no session has two hosts, no
pool has too many pods, no state is lost that nobody saved), and when the faults end, everything comes to rest as people
want it, and another look at it writes nothing.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.api_server import Document
from tests.support.timeless import Timeless
from tests.support.world import NAMESPACE, World, is_live, said

from carrel_api import names
from carrel_api.session import AgentSession
from carrel_operator.builders.pod import claim_patch
from carrel_operator.observed import PodView

DESKS = st.sampled_from(["a", "b", "c"])
PAUSES = st.sampled_from([0.0, 0.003, 0.1, 0.7, 3.0, 40.0])
"""Seconds: within a pass, between two, until a pod runs, until everything has."""
EGRESS: list[Document] = [{"cidr": "203.0.113.0/24", "ports": [443]}]


class Convergence(RuleBasedStateMachine):
    """A world, and what may happen in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Timeless()
        self.loop.__enter__()
        self.world: World = self.loop.run(self._begin())

    async def _begin(self) -> World:
        return World()

    def pass_time(self, seconds: float) -> None:
        self.loop.run(self.world.go_on(seconds))

    def act(self, act: Any, *arguments: Any, **options: Any) -> None:
        """Do something inside the event loop, which machinery of the cluster may want to use."""

        async def inside() -> None:
            act(*arguments, **options)

        self.loop.run(inside())

    @initialize(isolation=st.sampled_from(["Required", "Preferred"]), replicas=st.integers(0, 2))
    def begin(self, isolation: str, replicas: int) -> None:
        self.isolation = isolation
        self.act(self.world.make_class, isolation=isolation, egress=EGRESS)
        self.act(self.world.make_pool, replicas)

    # people

    @rule(name=DESKS, egress=st.booleans(), pause=PAUSES)
    def make_session(self, name: str, egress: bool, pause: float) -> None:
        if self.world.server.find(names.SESSION_KIND, name, NAMESPACE) is None:
            spec = {"network": {"egress": EGRESS}} if egress else {}
            self.act(self.world.make_session, name, tenant=f"tenant-{name}", **spec)
        self.pass_time(pause)

    @rule(name=DESKS, mode=st.sampled_from(["Suspended", "Running"]), pause=PAUSES)
    def suspend_or_resume(self, name: str, mode: str, pause: float) -> None:
        if self.world.server.find(names.SESSION_KIND, name, NAMESPACE) is not None:
            self.act(self.world.change_session, name, operatingMode=mode)
        self.pass_time(pause)

    @rule(name=DESKS)
    def use_session(self, name: str) -> None:
        if self.world.server.find(names.SESSION_KIND, name, NAMESPACE) is not None:
            self.world.use(name)

    @rule(name=DESKS, pause=PAUSES)
    def delete_session(self, name: str, pause: float) -> None:
        if self.world.server.find(names.SESSION_KIND, name, NAMESPACE) is not None:
            self.act(self.world.delete_session, name)
        self.pass_time(pause)

    @rule(replicas=st.integers(0, 3), pause=PAUSES)
    def change_pool(self, replicas: int, pause: float) -> None:
        self.act(self.world.make_pool, replicas)
        self.pass_time(pause)

    @rule(digit=st.sampled_from("abc"), pause=PAUSES)
    def change_class(self, digit: str, pause: float) -> None:
        self.act(self.world.make_class, digit, isolation=self.isolation, egress=EGRESS)
        self.pass_time(pause)

    # nodes

    @rule(number=st.integers(0, 9), fault=st.sampled_from(["delete", "crash", "oom", "evict"]), pause=PAUSES)
    def hurt_a_pod(self, number: int, fault: str, pause: float) -> None:
        pods = self.world.server.all("Pod")
        if pods:
            pod = pods[number % len(pods)]
            kubelets = self.world.kubelets
            if fault == "delete":
                self.act(self.world.server.delete, "Pod", pod["metadata"]["name"], NAMESPACE)
            elif fault == "evict":
                self.act(kubelets.evict, pod)
            else:
                self.act(kubelets.crash, pod, *(("OOMKilled", 137) if fault == "oom" else ()))
        self.pass_time(pause)

    # the watch

    @rule(late=st.booleans(), pause=PAUSES)
    def have_the_watch_be_late(self, late: bool, pause: float) -> None:
        self.world.watch_is_late = late
        if not late:
            self.act(self.world.process.deliver_all)
        self.pass_time(pause)

    @precondition(lambda self: self.world.process.inbox)
    @rule(data=st.data(), again=st.booleans(), pause=PAUSES)
    def bring_something(self, data: st.DataObject, again: bool, pause: float) -> None:
        inbox = self.world.process.inbox
        key = data.draw(st.sampled_from(sorted(inbox)))
        self.act(self.world.process.deliver, key, data.draw(st.integers(1, len(inbox[key]))), again=again)
        self.pass_time(pause)

    @precondition(lambda self: self.world.process.inbox)
    @rule(pause=PAUSES)
    def lose_what_the_watch_had(self, pause: float) -> None:
        self.act(self.world.process.listen_anew)
        self.pass_time(pause)

    # the operator, and another one that does not know yet that it is no leader

    @rule(number=st.integers(1, 12), when=st.sampled_from(["before", "after"]), pause=PAUSES)
    def kill_at_a_write(self, number: int, when: Any, pause: float) -> None:
        self.world.kill_at(number, when)
        self.pass_time(pause)

    @rule(pause=PAUSES)
    def kill_now(self, pause: float) -> None:
        self.loop.run(self.world.restart())
        self.pass_time(pause)

    @rule(name=DESKS, number=st.integers(0, 3), pause=PAUSES)
    def claim_as_a_rival(self, name: str, number: int, pause: float) -> None:
        session = self.world.server.find(names.SESSION_KIND, name, NAMESPACE)
        pods = [
            PodView.of(pod)
            for pod in self.world.server.all("Pod", labels=f"{names.MANAGED_BY_LABEL}={names.MANAGER}")
            if names.POOL_LABEL in pod["metadata"]["labels"] and is_live(pod)
        ]
        if pods and session is not None and not self.world.pods_of(name) and said(session, "Suspended")[0] != "True":
            pod = pods[number % len(pods)]
            patch = claim_patch(AgentSession.parse(session), pod, self.world.now)
            self.act(self.world.server.patch, "Pod", pod.name, NAMESPACE, patch)
        self.pass_time(pause)

    @rule(number=st.integers(0, 9), pause=PAUSES)
    def touch_a_pod(self, number: int, pause: float) -> None:
        """Change a pod so that whoever has seen it before is too late."""
        pods = self.world.server.all("Pod")
        if pods:

            def touch(document: Document) -> None:
                document["metadata"]["annotations"]["example.org/touched"] = str(self.world.server.version)

            self.act(self.world.server.change, "Pod", pods[number % len(pods)]["metadata"]["name"], touch)
        self.pass_time(pause)

    # what must hold

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.world.check()

    @rule()
    def come_to_rest(self) -> None:
        self.loop.run(self._rest())

    async def _rest(self) -> None:
        await self.world.settle()
        self.world.check_at_rest()
        await self.world.check_nothing_is_written()

    def teardown(self) -> None:
        try:
            self.loop.run(self._rest())
        finally:
            self.loop.__exit__(None, None, None)


__all__ = ["Convergence"]
