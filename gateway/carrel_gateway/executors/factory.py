"""Opens the executor that the settings name."""

from __future__ import annotations

from carrel_gateway.errors import Unavailable
from carrel_gateway.executors.base import Executor
from carrel_gateway.executors.local import LocalExecutor
from carrel_gateway.settings import Settings
from carrel_wire.tokens import KeySet


async def open_executor(settings: Settings, keys: KeySet) -> Executor:
    """Return the executor of the settings; `keys` is what local hosts shall trust.

    Raises
    ------
    Unavailable
        It cannot work here; the message says what to do.
    """
    if settings.executor_type == "kubernetes":
        try:
            from carrel_gateway.executors.kubernetes import KubernetesExecutor  # noqa: PLC0415  an extra of the package
        except ImportError as error:
            raise Unavailable("The kubernetes executor needs the extra `operator`: carrel[operator].") from error
        return await KubernetesExecutor.open(settings)
    return await LocalExecutor.open(settings, keys)
