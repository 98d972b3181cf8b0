"""Questions to an idle kernel, with a deadline: its variables, completion and documentation.

What comes back was made by objects of the user's; it is checked against the shapes of the wire.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from carrel_kernel.errors import DeadlineExceeded, KernelUnavailable
from carrel_kernel.kernel import Kernel
from carrel_kernel.protocol import object_of
from carrel_wire.host import CompleteReply, CompleteRequest, InspectReply, VariablesReply

DEADLINE_SECONDS: Final = 2.0
_VARIABLES_REQUEST: Final = "carrel_variables_request"  # `inside.kernel` answers it
_MAX_MATCHES: Final = 500


async def variables(kernel: Kernel) -> VariablesReply:
    """Return the variables by name.

    Raises
    ------
    KernelBusy, KernelUnavailable, DeadlineExceeded
    """
    reply = await _ask(kernel, _VARIABLES_REQUEST, {})
    try:
        return msgspec.convert(reply, VariablesReply)
    except msgspec.ValidationError as error:
        raise KernelUnavailable("the kernel could not list its variables; restart it if this stays so") from error


async def complete(kernel: Kernel, request: CompleteRequest) -> CompleteReply:
    """Return completions at the cursor, which counts characters.

    Raises
    ------
    KernelBusy, KernelUnavailable, DeadlineExceeded
    """
    reply = await _ask(kernel, "complete_request", {"code": request.code, "cursor_pos": _cursor(request)})
    matches = reply.get("matches")
    names = cast("list[Any]", matches)[:_MAX_MATCHES] if isinstance(matches, list) else []
    start, end = reply.get("cursor_start"), reply.get("cursor_end")
    return CompleteReply(
        matches=[str(name) for name in names],
        cursor_start=start if isinstance(start, int) else request.cursor_pos,
        cursor_end=end if isinstance(end, int) else request.cursor_pos,
    )


async def inspect(kernel: Kernel, request: CompleteRequest) -> InspectReply:
    """Return the documentation of the name at the cursor.

    Raises
    ------
    KernelBusy, KernelUnavailable, DeadlineExceeded
    """
    content = {"code": request.code, "cursor_pos": _cursor(request), "detail_level": 0}
    reply = await _ask(kernel, "inspect_request", content)
    text = object_of(reply.get("data")).get("text/plain")
    return InspectReply(found=reply.get("found") is True, text=text if isinstance(text, str) else "")


def _cursor(request: CompleteRequest) -> int:
    return max(0, min(request.cursor_pos, len(request.code)))


async def _ask(kernel: Kernel, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
    try:
        return await kernel.request(msg_type, content, seconds=DEADLINE_SECONDS)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the kernel did not answer within {DEADLINE_SECONDS:g} s; it was interrupted"
        ) from error
