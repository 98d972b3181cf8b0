"""Carries out all checks that the settings ask for, one after the other; none keeps another from being made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from carrel_gateway.doctor import cluster, machine, servers
from carrel_gateway.doctor.findings import Finding, Missing, Unknown
from carrel_gateway.settings import Settings
from carrel_gateway.sources.reading import InvalidSettings

SECONDS: Final = 30.0
"""For one check; a server that does not answer by then is not there."""


async def examine() -> list[Finding]:
    """Return what every check found, for the settings that a gateway that starts here would have."""
    findings = [await _made("python", lambda: _told(machine.python))]
    try:
        settings = Settings()
    except InvalidSettings as error:
        return [*findings, *(Finding("settings", "missing", line, _SHOW) for line in error.message.splitlines())]
    findings += [Finding("settings", "unknown", warning, _SHOW) for warning in settings.found.warnings]
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("packages", lambda: _told(machine.packages, settings)),
        ("data folder", lambda: _told(machine.folder, settings.data_dir, "CARREL_DATA_DIR")),
        ("secrets", lambda: _told(machine.secrecy, settings)),
        ("port", lambda: _told(machine.port, settings)),
        ("keys", lambda: _told(servers.keys, settings)),
        ("database", lambda: servers.database(settings)),
        ("redis", lambda: servers.redis(settings)),
        ("objects", lambda: servers.objects(settings)),
        ("models", lambda: servers.models(settings)),
    ]
    findings += [await _made(name, check) for name, check in checks]
    if settings.executor_type == "kubernetes":
        findings += await _of_cluster(settings)
    return findings


_SHOW: Final = "carrel config show says where each setting comes from"


async def _of_cluster(settings: Settings) -> list[Finding]:
    try:
        opened = await cluster.open_cluster(settings)
    except Missing as missing:
        return [Finding("cluster rights", "missing", missing.found, missing.advice)]
    except ImportError:
        return []  # "packages" has said it
    try:
        return [
            await _made("cluster rights", lambda: cluster.rights(opened)),
            await _made("network policies", lambda: cluster.isolation(opened)),
            await _made("pod processes", lambda: cluster.processes(opened)),
        ]
    finally:
        await opened.aclose()


async def _told(check: Callable[..., str], *arguments: object) -> str:
    return await asyncio.to_thread(check, *arguments)


async def _made(name: str, check: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(SECONDS):
            return Finding(name, "ok", await check())
    except Missing as missing:
        return Finding(name, "missing", missing.found, missing.advice)
    except Unknown as unknown:
        return Finding(name, "unknown", unknown.found, unknown.advice)
    except TimeoutError:
        return Finding(name, "missing", f"no answer within {SECONDS:g} s", "check that it runs and can be reached")
    except ImportError as error:
        return Finding(name, "missing", f"not installed: {error.name}", "see packages")
