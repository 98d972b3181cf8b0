"""`python -m carrel_operator`: logs, probes, leadership, kopf, the queue. Ends with all of them when one ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Coroutine
from itertools import chain, repeat
from typing import Any, Final

import kopf
import structlog
import uvloop

from carrel_api import names
from carrel_operator.context import Key, ProcessContext
from carrel_operator.errors import ApiError, ApiNotFound, ConfigurationError, OperatorError
from carrel_operator.handlers import probes, startup, watching
from carrel_operator.leader import Leadership
from carrel_operator.settings import Settings, load
from carrel_operator.sighting import Lookout
from carrel_operator.sweeping import read_all
from carrel_operator.worker import Worker

logger = structlog.get_logger(__name__)

FIRST_PAUSES: Final = (1.0, 2.0, 4.0)
LAST_PAUSE: Final = 8.0
"""Seconds between two looks for the definitions while the API server does not answer."""
NEW_OBJECTS: Final = (50_000, 20, 100)
"""After how many the garbage collector looks at the new ones, and after how many such looks at the older ones.

Every document that a list or a watch brings is hundreds of them, and none is garbage yet: with Python's 700, reading
ten thousand sessions is mostly collecting. What goes in circles here is small (tasks and their exceptions).
"""


def main() -> int:
    """Run until a signal or a fault; return the exit code."""
    try:
        settings = load()
        _log(settings)
        gc.freeze()  # modules stay
        gc.set_threshold(*NEW_OBJECTS)
        uvloop.run(run(settings))
    except OperatorError as error:
        sys.stderr.write(f"carrel-operator: {error}\n")
        return 1
    return 0


async def run(settings: Settings) -> None:
    """Run until a signal: a standby ends at once, the leader when kopf, which takes the signals over, has ended.

    Raises
    ------
    ConfigurationError
        Settings, keys or custom resource definitions are missing or wrong.
    LeaseLost
        Another replica took over.
    """
    told = _signals()
    context = await ProcessContext.from_settings(settings)
    health = probes.Health(context.queue, context.store)
    try:
        async with probes.serve(health, settings) as ports:
            logger.info("started", **ports)
            await _until_first_ends(told.wait(), _check_definitions(context))
            leadership = Leadership(context.cluster, settings)
            lookout = Lookout(context.hosts, settings.pod_ip, ports["reach_port"])
            try:
                if not told.is_set():
                    await _until_first_ends(
                        _watch(context, health),
                        _lead(context, health, leadership, lookout),
                        told.wait(),  # of a signal that came before kopf took them over
                    )
            finally:
                await leadership.release()
    finally:
        await context.aclose()


def _signals() -> asyncio.Event:
    """Return what is set when the process is told to end: as PID 1 it would not end without a handler."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    return told


async def _watch(context: ProcessContext, health: probes.Health) -> None:
    """Keep the store warm, leader or not: whoever takes over knows what there is."""
    registry = kopf.OperatorRegistry()
    startup.register(registry)
    watching.register(registry, context)
    listening = asyncio.Event()
    await _until_first_ends(
        kopf.operator(
            registry=registry,
            settings=startup.kopf_settings(),
            standalone=True,
            namespaces=context.settings.session_namespaces,
            ready_flag=listening,
        ),
        _note(listening, health),
    )


async def _lead(context: ProcessContext, health: probes.Health, leadership: Leadership, lookout: Lookout) -> None:
    """Become the leader, read what the one before wrote last, and then work."""
    await leadership.acquire()
    health.leader = True
    await _until_first_ends(leadership.keep(), _work(context, lookout))


async def _work(context: ProcessContext, lookout: Lookout) -> None:
    for namespace in context.settings.session_namespaces:
        await _read(context, namespace)
        context.queue.add(Key("namespace", namespace))
    for kind, named in (("pool", names.POOL_KIND), ("session", names.SESSION_KIND)):
        for namespace, name in context.store.names(named):
            context.queue.add(Key(kind, namespace, name))
    await context.queue.run(Worker(context, lookout, read=context.settings.session_namespaces).handle)


async def _read(context: ProcessContext, namespace: str) -> None:
    """Read all of a namespace anew; an API server that is away is asked again, as long as the lease is held."""
    for pause in chain(FIRST_PAUSES, repeat(LAST_PAUSE)):
        try:
            await read_all(context, namespace)
        except ApiError as error:
            logger.warning("cannot read what is there", error=str(error), again_after_seconds=pause)
        else:
            return
        await asyncio.sleep(pause)


async def _note(watching: asyncio.Event, health: probes.Health) -> None:
    await watching.wait()
    health.watching = True
    await asyncio.Event().wait()


async def _until_first_ends(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all until one ends; cancel the others, and raise what the first raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            if not task.cancelled():  # kopf cancels what it runs when it is told to end
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _check_definitions(context: ProcessContext) -> None:
    """Refuse to start where there is nothing to watch: kopf would wait in silence.

    An API server that is away, or has just begun and does not know anybody's rights yet, is asked again.
    """
    for pause in chain(FIRST_PAUSES, repeat(LAST_PAUSE)):
        try:
            await _look(context)
        except ApiNotFound as error:
            raise ConfigurationError(
                "the custom resource definitions must be installed first: apply crds/*.yaml"
            ) from error
        except ApiError as error:
            logger.warning("cannot look for the definitions", error=str(error), again_after_seconds=pause)
        else:
            return
        await asyncio.sleep(pause)


async def _look(context: ProcessContext) -> None:
    async for _ in context.cluster.items(names.CLASS_KIND):
        break
    for namespace in context.settings.session_namespaces:
        async for _ in context.cluster.items(names.SESSION_KIND, namespace):
            break


def _log(settings: Settings) -> None:
    """One line of JSON for each event, on standard error; kopf's own from warnings on."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format='{"level":"%(levelname)s","event":%(message)r}'
    )


if __name__ == "__main__":
    sys.exit(main())
