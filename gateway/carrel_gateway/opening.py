"""Opens what one process holds, in the order in which the parts need each other; closes what was opened when one fails.

It knows which parts there are, and nothing of how they work.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from carrel_gateway.context import ProcessContext
from carrel_gateway.executors.factory import open_executor
from carrel_gateway.identity.secrets import load_master_keys
from carrel_gateway.identity.tokens import AccessTokens
from carrel_gateway.kernels.pool import KernelPool
from carrel_gateway.kernels.signing import load_host_keys
from carrel_gateway.quotas.keeper import QuotaKeeper
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Database
from carrel_gateway.storage.factory import open_bus, open_cache, open_objects, open_windows
from carrel_gateway.storage.ids import new_id


async def open_context(settings: Settings) -> ProcessContext:
    """Return the context of a process; its `aclose` closes everything.

    Raises
    ------
    CarrelError
        A part cannot be opened; the message says which and what to do.
    """
    async with AsyncExitStack() as opened:
        database = await Database.connect(settings)  # first: it refuses a data folder that another process serves
        opened.push_async_callback(database.aclose)
        bus = await open_bus(settings)
        opened.push_async_callback(bus.aclose)
        cache = await open_cache(settings)
        opened.push_async_callback(cache.aclose)
        windows = await open_windows(settings)
        opened.push_async_callback(windows.aclose)
        objects = await open_objects(settings)
        opened.push_async_callback(objects.aclose)
        keys = await asyncio.to_thread(load_host_keys, settings)
        secrets = await asyncio.to_thread(load_master_keys, settings)
        executor = await open_executor(settings, keys.key_set)
        opened.push_async_callback(executor.aclose)
        context = ProcessContext(
            settings=settings,
            database=database,
            bus=bus,
            cache=cache,
            windows=windows,
            objects=objects,
            executor=executor,
            kernels=KernelPool(settings, executor, keys.signer),
            quotas=QuotaKeeper(database, settings),
            secrets=secrets,
            tokens=AccessTokens(secrets, lifetime_seconds=settings.access_token_seconds),
            gateway_id=new_id(),
        )
        opened.pop_all()  # from here on the context closes them
        return context
