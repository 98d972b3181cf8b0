"""kopf's own settings and credentials: no annotations, no events, no finalizers; it only watches."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

import kopf

from carrel_api import names
from carrel_operator.handlers.stateless import NoDifferences, NoProgress

SERVER_TIMEOUT: Final = 300
"""Seconds after which the API server ends a watch, which is then opened anew."""


class EndlessBackoffs:
    """Delays for an API server that is away: up to ten seconds, without end, since there is nothing else to do."""

    def __iter__(self) -> Iterator[float]:
        """Return the delays of one request, in seconds."""
        return itertools.chain((0.5, 1, 2, 3, 5), itertools.repeat(10))


def register(registry: kopf.OperatorRegistry) -> None:
    """Have kopf log in with the pod's service account, or outside a cluster with `KUBECONFIG`."""

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    def login(logger: kopf.Logger, **kwargs: Any) -> kopf.ConnectionInfo | None:  # pyright: ignore[reportUnusedFunction] (registered)
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            return kopf.login_with_service_account(logger=logger, **kwargs)
        return kopf.login_with_kubeconfig(logger=logger, **kwargs)


def kopf_settings() -> kopf.OperatorSettings:
    """Return the settings that kopf runs with."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.level = logging.CRITICAL
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_TIMEOUT
    settings.watching.client_timeout = SERVER_TIMEOUT + 30
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["", "v1", "pods"] = f"{names.COMPONENT_LABEL}={names.KERNEL_COMPONENT}"
    settings.persistence.diffbase_storage = NoDifferences()
    settings.persistence.progress_storage = NoProgress()
    settings.queueing.idle_timeout = 0.1  # a task per object that changes; none that only waits
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.process.ultimate_exiting_timeout = 60
    return settings
