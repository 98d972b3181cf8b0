"""What a kernel is asked for to save and to restore its variables, and how long that may take.

The kernel keeps the time itself, variable by variable; when it does not, it is interrupted and at last killed. What it
answers was made beside the user's objects: it is checked against the shapes of the wire.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from carrel_kernel import protocol
from carrel_kernel.errors import DeadlineExceeded, KernelUnavailable
from carrel_kernel.kernel import Kernel
from carrel_kernel.live import LiveKernel
from carrel_wire.snapshots import Label, Unsaved, Variables

GRACE_SECONDS: Final = 2.0
"""For what the kernel does after its own deadline: it ends a file and tells."""
_MIME: Final = "application/vnd.carrel.snapshot+json"
_CALLS: Final = "__import__('carrel_kernel.inside.snapshots.calls', fromlist=['calls'])"
_T = TypeVar("_T")


class Restored(msgspec.Struct, frozen=True):
    """What the kernel says of a restore."""

    restored: list[Label]
    not_restored: list[Unsaved]


class Asking:
    """Asks the kernels of one workspace."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = str(workspace)

    async def save(
        self, kernel: Kernel, live: LiveKernel, folder: Path, *, seconds: float, max_bytes: int
    ) -> Variables:
        """Have the kernel write its variables into a folder.

        Raises
        ------
        DeadlineExceeded, KernelUnavailable
        """
        expression = f"{_CALLS}.take({str(folder)!r}, {self._workspace!r}, {seconds!r}, {max_bytes!r})"
        return await self._ask(kernel, live, expression, Variables, seconds)

    async def bring_back(
        self, kernel: Kernel, live: LiveKernel, folder: Path, variables: Variables, *, seconds: float
    ) -> Restored:
        """Have the kernel restore variables from the contents in a folder.

        Raises
        ------
        DeadlineExceeded, KernelUnavailable
        """
        described = folder / f".restore-{kernel.id}"
        await asyncio.to_thread(described.write_bytes, msgspec.json.encode(variables))
        try:
            where = f"{str(folder)!r}, {self._workspace!r}, {str(described)!r}"
            expression = f"{_CALLS}.restore({where}, {seconds!r})"
            return await self._ask(kernel, live, expression, Restored, seconds)
        finally:
            await asyncio.to_thread(described.unlink, missing_ok=True)

    async def _ask(self, kernel: Kernel, live: LiveKernel, expression: str, kind: type[_T], seconds: float) -> _T:
        content = {
            "code": "",
            "silent": True,
            "store_history": False,
            "allow_stdin": False,
            "stop_on_error": False,
            "user_expressions": {"value": expression},
        }
        try:
            reply = await kernel.ask(live, "execute_request", content, seconds=seconds + GRACE_SECONDS)
        except TimeoutError as error:
            raise DeadlineExceeded("the kernel did not keep to the time of its snapshot; it was interrupted") from error
        shown = protocol.object_of(protocol.object_of(reply.get("user_expressions")).get("value"))
        try:
            return msgspec.convert(protocol.object_of(shown.get("data")).get(_MIME), kind)
        except msgspec.ValidationError as error:
            what: Any = shown.get("ename")
            raise KernelUnavailable(
                "the kernel could not deal with the snapshot; restart it if this stays so",
                error=what[:100] if isinstance(what, str) else None,
            ) from error
