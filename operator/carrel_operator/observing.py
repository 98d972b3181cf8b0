"""What a pass sees of a session, from what this process knows of the cluster: no request is made for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from carrel_api import names
from carrel_api.session import AgentSession
from carrel_api.session_class import SessionClass
from carrel_api.session_pool import SessionPool
from carrel_operator.actions import Memory
from carrel_operator.builders.identity import egress_policy_name
from carrel_operator.claims import Choice, Pooled, choose
from carrel_operator.isolation import foreign_policies
from carrel_operator.observed import Observed, PodView
from carrel_operator.readiness import Readiness
from carrel_operator.settings import Settings
from carrel_operator.settlement import Refusal, settle
from carrel_operator.store import Store


@dataclass(frozen=True)
class Observer:
    """Looks things up."""

    settings: Settings
    store: Store
    readiness: Readiness

    def session(self, wanted: AgentSession, memory: Memory) -> Observed:
        """Return what is seen of the session."""
        namespace = wanted.metadata.namespace
        pods = _in_order(self.store.pods_of(wanted.metadata.uid), wanted.status.pod_uid)
        pod = pods[0] if pods else None
        policy = self.store.find("NetworkPolicy", namespace, egress_policy_name(wanted))
        class_name, session_class = self.class_of(wanted.spec.class_name or wanted.status.class_name)
        starts = pod is None and wanted.spec.operating_mode == "Running" and session_class is not None
        choice = self._choice(wanted, session_class) if starts and session_class is not None else Choice()
        pool = self.store.pool_of(pod) if pod is not None else None
        return Observed(
            class_name=class_name,
            session_class=session_class,
            closed=self.settings.closed_networks,
            pod=pod,
            pool=pool[1] if pool is not None else None,
            further_pods=tuple(pods[1:]),
            candidates=choice.candidates,
            cold_start_reason=choice.cold_start_reason if pod is None else pod.cold_start_reason,
            looks=bool(self.settings.pod_ip),
            sight=self.readiness.sight_of(pod) if pod is not None else None,
            looking=pod is not None and self.readiness.is_looked_at(pod),
            foreign=foreign_policies(self.store.foreign_in(namespace), pod.labels) if pod is not None else (),
            saves=self.settings.snapshots,
            egress_spec=policy["spec"] if policy is not None else None,
            binding=memory.binding,
            activity=memory.activity,
            unbound=memory.unbound,
        )

    def class_of(self, name: str | None) -> tuple[str, SessionClass | None]:
        """Return the class of this name, or the default one, and its name."""
        if name:
            return name, self.store.find(names.CLASS_KIND, "", name)
        found = [one for one in self.store.all(names.CLASS_KIND) if one is not None and one.is_default]
        newest: SessionClass | None = max(found, key=_made, default=None)
        return (newest.metadata.name, newest) if newest is not None else ("", None)

    def _choice(self, wanted: AgentSession, session_class: SessionClass) -> Choice:
        settled = settle(wanted.spec, session_class, self.settings.closed_networks)
        if isinstance(settled, Refusal):
            return Choice()
        pools = [
            Pooled(pool, self.store.pods_of(pool.metadata.uid))
            for document in self.store.pools_in(wanted.metadata.namespace)
            if self.class_of((pool := SessionPool.parse(document)).spec.class_name)[0] == session_class.metadata.name
        ]
        isolation = session_class.spec.isolation == "Required"
        return choose(wanted, settled, pools, partial(self.readiness.is_ready, isolation=isolation))


def _in_order(pods: list[PodView], known: str | None) -> list[PodView]:
    """Return the session's pod first: the one that status names, then live ones, then the oldest."""
    late = datetime.max.replace(tzinfo=UTC)
    return sorted(pods, key=lambda pod: (pod.uid != known, not pod.live, pod.made_at or late, pod.name))


def _made(session_class: SessionClass) -> tuple[datetime, str]:
    made = session_class.metadata.creation_timestamp
    return made or datetime.min.replace(tzinfo=UTC), session_class.metadata.name
