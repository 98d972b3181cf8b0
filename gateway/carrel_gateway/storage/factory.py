"""Opens the bus, the cache, the counters and the object store that the settings name."""

from __future__ import annotations

from carrel_gateway.settings import Settings
from carrel_gateway.storage.bus import Bus, InProcessBus
from carrel_gateway.storage.cache import CacheBackend, MemoryCache
from carrel_gateway.storage.objects import StorageBackend
from carrel_gateway.storage.windows import MemoryWindows, Windows


async def open_bus(settings: Settings) -> Bus:
    """Return the bus of the settings; a Redis that is away is waited for in the background."""
    if settings.redis_url is None:
        return InProcessBus()
    from carrel_gateway.storage.redis_bus import RedisBus  # noqa: PLC0415  needs an extra

    return RedisBus(settings.redis_url)


async def open_cache(settings: Settings) -> CacheBackend:
    """Return the cache of the settings; without Redis nothing is in it, and that is no error."""
    if settings.redis_url is None:
        return MemoryCache(ttl_seconds=settings.cache_ttl)
    from carrel_gateway.storage.redis_cache import RedisCache  # noqa: PLC0415  needs an extra

    return RedisCache(settings.redis_url, ttl_seconds=settings.cache_ttl)


async def open_windows(settings: Settings) -> Windows:
    """Return the counters of calls; a Redis that is away is no reason not to have any."""
    if settings.redis_url is None:
        return MemoryWindows()
    from carrel_gateway.storage.redis_windows import RedisWindows  # noqa: PLC0415  needs an extra

    return RedisWindows(settings.redis_url)


async def open_objects(settings: Settings) -> StorageBackend:
    """Return the object store of the settings."""
    if settings.storage_type == "s3":
        from carrel_gateway.storage.s3_objects import S3Objects  # noqa: PLC0415  only where it is used

        return S3Objects(settings)
    if settings.storage_type == "gcs":
        from carrel_gateway.storage.gcs_objects import GcsObjects  # noqa: PLC0415  only where it is used

        return GcsObjects(settings)
    if settings.storage_type == "azure":
        from carrel_gateway.storage.azure_objects import AzureObjects  # noqa: PLC0415  only where it is used

        return AzureObjects(settings)
    from carrel_gateway.storage.local_objects import LocalObjects  # noqa: PLC0415  only where it is used

    return LocalObjects(settings)
