"""The part "Operator" of the benchmarks: starts and claims on a real node and on nodes that are not real, and scale.

    python -m tests.load.operator_bench [--only TEXT] [--write PATH] [--short]

The operator runs as a process of this host under exactly its own rights, in namespaces of its own. Writes are counted
by the API server's audit log. `--only` takes a part of a name of `SECTIONS`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.operator.conftest import session_class
from tests.cluster.provider.base import Cluster
from tests.cluster.provider.choice import choose
from tests.load import rows, scale, starts, wake
from tests.load.bare import BareClaims
from tests.load.kube import Document, Kube, Sessions
from tests.load.page import machine, write_part
from tests.load.starts import Bench
from tests.load.usage import Meter, control_plane
from tests.support import fake_nodes
from tests.support.audit import AuditLog
from tests.support.fake_nodes import FakeNodes
from tests.support.operator_process import OperatorProcess, operator_process
from tools.images import build

SECTIONS = ("cold real", "claims real", "wake real", "cold kwok", "claims kwok", "scale")
AT_ONCE = 20
SERIAL_TARGET = "≤ 20 / 35 ms (p50 / p95), ≤ 3 writes, ≤ 6 with the replacement"
AT_ONCE_TARGET = "≤ 120 / 150 ms (p50 / p95), ≤ twice the bare writes"


CHURNS = (scale.Churn(rate=10.0, seconds=30.0, pool=50), scale.Churn(rate=45.0, seconds=30.0, pool=200))


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    cold: int = 20
    wakes: int = 10
    serial: int = 100
    serial_real: int = 30
    rounds: int = 10
    """Times that many claims are made at once."""
    rounds_real: int = 0
    """None: twenty real pods did not all become ready on a node of two cores beside everything else."""
    at_once: int = AT_ONCE
    nodes: int = 20
    levels: tuple[int, ...] = (1_000, 3_000, 10_000)
    churns: tuple[scale.Churn, ...] = CHURNS


SHORT = Sizes(cold=2, wakes=1, serial=4, serial_real=2, rounds=1, rounds_real=0, at_once=4, nodes=1, levels=(20,),
              churns=(scale.Churn(rate=5.0, seconds=2.0, pool=5),))  # fmt: skip


@dataclass
class Results:
    """What was measured."""

    rows: list[rows.Row] = field(default_factory=list)
    levels: list[scale.Level] = field(default_factory=list)
    pods: float = 0.0
    """Kernel pods that the operator made for starts and claims, as it says."""
    looks: float = 0.0
    """Looks that it took at their isolation meanwhile."""
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Processes that wanted to run before, on average of a minute."""

    def add(self, *found: rows.Row) -> None:
        """Keep lines, and print them."""
        self.rows += found
        for row in found:
            print(row.markdown(), flush=True)


@contextlib.contextmanager
def _nodes(cluster: Cluster, sizes: Sizes, only: str) -> Iterator[FakeNodes | None]:
    """Have the nodes that are not real, where a chosen section needs them."""
    if any(only in section for section in SECTIONS if not section.endswith("real")):
        with fake_nodes.fake_nodes(cluster, sizes.nodes) as nodes:
            yield nodes
    else:
        yield None


def measure(cluster: Cluster, kernel_image: str, sizes: Sizes, only: str = "") -> Results:
    """Run the chosen sections on a cluster that has the kernel image."""
    with _nodes(cluster, sizes, only) as nodes, operator_process(cluster, kernel_image) as operator:
        try:
            return asyncio.run(_guarded(_measure(cluster, operator, nodes, sizes, only), operator))
        except BaseException:
            print(operator.log()[-4000:])
            raise


async def _guarded(measuring: Coroutine[object, object, Results], operator: OperatorProcess) -> Results:
    """Measure for as long as the operator lives: what it does not do is waited for in vain."""
    task = asyncio.ensure_future(measuring)
    while not (await asyncio.wait([task], timeout=1))[0]:
        if operator.process is not None and operator.process.poll() is not None:
            task.cancel()
            await asyncio.wait([task])
            raise RuntimeError(f"the operator ended with {operator.process.returncode}")
    return task.result()


async def _measure(
    cluster: Cluster, operator: OperatorProcess, nodes: FakeNodes | None, sizes: Sizes, only: str
) -> Results:
    results = Results()
    async with _bench(cluster, operator) as bench:
        place = operator.place
        if any(only in section for section in SECTIONS if section.endswith("real")):
            await starts.make_class(bench, session_class(place))
        if only in "cold real":
            results.add(*await starts.first_reply(bench, place.class_name, sizes.cold))
        if only in "claims real":
            await _claims_real(bench, results, place.class_name, sizes)
        if only in "wake real":
            larger = f"{place.class_name}-wake"
            resources = {"memory": "1Gi", "cpu": "1"}
            await starts.make_class(bench, session_class(place, larger, defaultResources=resources))
            with tempfile.TemporaryDirectory(prefix="carrel-wake-") as folder:
                results.add(await asyncio.to_thread(wake.wake, bench, cluster.kubeconfig, larger,
                                                    Path(folder), sizes.wakes))  # fmt: skip
        if nodes is None:
            return results
        fake = f"{place.class_name}-fake"
        await starts.make_class(bench, session_class(place, fake, **nodes.placement))
        if only in "cold kwok":
            results.add(await starts.cold_start(bench, fake, sizes.cold, "kwok pods"))
        if only in "claims kwok":
            await _claims_fake(bench, cluster, results, fake, nodes.placement, sizes)
        results.pods = operator.metric("carrel_operator_pods_created_total")
        results.looks = operator.metric("carrel_operator_sights_total", connection="kernel_port")
        if only in "scale":
            for count in sizes.levels:
                found = await scale.level(bench, fake, count, sizes.churns)
                results.levels.append(found)
                print("\n".join(found.markdown()), flush=True)
            await bench.sessions.delete_all(scale.RECOVERY_SECONDS)
    return results


@contextlib.asynccontextmanager
async def _bench(cluster: Cluster, operator: OperatorProcess) -> AsyncIterator[Bench]:
    path = cluster.audit_log()
    groups = {"operator": {"operator": operator.process_id}}
    plane = control_plane(cluster)
    meter = Meter(AuditLog(path) if path else None, {**groups, **({"control plane": plane} if plane else {})})
    async with (
        Kube.connect(cluster.kubeconfig) as kube,
        Sessions(kube, operator.place.sessions).watching() as sessions,
    ):
        yield Bench(kube, operator, sessions, meter, whoami(cluster))


def whoami(cluster: Cluster) -> str:
    """Return the user of the cluster's kubeconfig."""
    return cluster.kubectl("auth", "whoami", "--output=jsonpath={.status.userInfo.username}")


async def _claims_real(bench: Bench, results: Results, class_name: str, sizes: Sizes) -> None:
    for at_once, times, replicas in ((1, sizes.serial_real, 3), (sizes.at_once, sizes.rounds_real, sizes.at_once)):
        row = _claim_row(bench, at_once, "runc pods")
        if times:
            async with starts.pool(bench, class_name, replicas) as name:
                await starts.claims(bench, class_name, name, times * at_once, at_once, row)
            results.add(row)


async def _claims_fake(
    bench: Bench, cluster: Cluster, results: Results, class_name: str, placement: Document, sizes: Sizes
) -> None:
    for at_once, times, replicas in ((1, sizes.serial, 3), (sizes.at_once, sizes.rounds, sizes.at_once)):
        row = _claim_row(bench, at_once, "kwok pods")
        async with _bare_claims(bench, cluster, placement, at_once) as bare:
            async with starts.pool(bench, class_name, replicas) as name:
                await starts.claims(bench, class_name, name, times * at_once, at_once, row, bare)
            bare.compare(row)
            results.add(row, bare.row)


def _claim_row(bench: Bench, at_once: int, where: str) -> rows.Row:
    work = f"claim from a warm pool, {starts.how(at_once)}, {where}"
    return bench.row(work, SERIAL_TARGET if at_once == 1 else AT_ONCE_TARGET, made_before=True)


@contextlib.asynccontextmanager
async def _bare_claims(bench: Bench, cluster: Cluster, placement: Document, at_once: int) -> AsyncIterator[BareClaims]:
    """Have a namespace with pods that no operator looks at."""
    namespace = f"carrel-bench-bare-{secrets.token_hex(4)}"
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await asyncio.to_thread(cluster.apply, document)
    try:
        await asyncio.to_thread(_await_account, cluster, namespace)
        bare = BareClaims(bench, namespace, at_once)
        await bare.make_pods(placement)
        yield bare
    finally:
        await asyncio.to_thread(cluster.kubectl, "delete", "namespace", namespace)


def _await_account(cluster: Cluster, namespace: str) -> None:
    """Wait for what admission of pods asks for in a new namespace."""
    cluster.kubectl("wait", "serviceaccount/default", "-n", namespace, "--for=create", "--timeout=30s")


def page(results: Results) -> str:
    """Return the part of the page as Markdown."""
    starts_table = rows.table(rows.HEAD, [row.markdown() for row in results.rows])
    scale_table = rows.table(scale.HEAD, [line for found in results.levels for line in found.markdown()])
    return f"""
{machine()}. One replica of the operator runs as a process of the host
beside a single-node Kubernetes, whose control plane, nodes and pods share the same cores with it and with the client
that measures. Times are wall time at the client, from before its request until its watch shows `Ready`. Writes are
counted in the API server's audit log, without leases and without the client's own; CPU is per session. The load average
before the run was {results.load:.1f}; what else wants the cores slows everything here, so compare lines of one run.

"Runc pods" are real ones of the node, with real kernel hosts. "Kwok pods" are nobody's: kwok says that they run, and
one stub answers `bind` for all of them. They show what the operator and the API server cost, and nothing of how pods
start. "Bare writes" are what no claim can do without (the session made, a pod's labels patched under a test of its
version, the status written), by a plain client in the same run.

agent-sandbox is not measured beside it: `go install` of its controller 1.0.3 fails, because the module proxy does not
list its versions. Known of it, from machines with more cores: a claim takes 50 to 64 ms (p50) and 80 ms (p95), 20 at
once 124 to 137 ms and 164 to 171 ms, with 23 to 24 writes of all components for each.

{starts_table}

Thousands of sessions, on kwok pods that were started cold. Churn makes and deletes so many sessions in each second,
which claim from a pool of 50 or 200; those that find it empty start cold. What is asked for and not reached is more
than the machine's cores can do for all components together, and the times are then those of a queue. "Back" is from
SIGKILL of the operator until its next process has looked at every session and a new one is Ready; nobody else may
take its Lease meanwhile, so the next process needs not wait for it. CPU is in cores. Targets for 10,000: p99 ≤ 500 ms
at 45/s, memory < 400 MiB, back in < 15 s.

{scale_table}
"""


def run(write: Path | None, *, short: bool, only: str) -> None:
    """Find a cluster, measure, print; write the part of the page when asked."""
    cluster, image = choose(), build("kernel")
    cluster.load_image(image.archive)
    results = measure(cluster, image.tag, SHORT if short else Sizes(), only)
    if write is not None:
        write_part(write, "Operator", page(results))


def main() -> None:
    """Take the arguments."""
    parser = argparse.ArgumentParser(description="The operator, measured")
    parser.add_argument("--write", type=Path, help="file of the page, of which this writes its own part")
    parser.add_argument("--short", action="store_true", help="a few of everything, to see that it runs")
    parser.add_argument("--only", default="", help=f"only sections with this text: {', '.join(SECTIONS)}")
    arguments = parser.parse_args()
    run(arguments.write, short=arguments.short, only=arguments.only)


if __name__ == "__main__":
    main()
