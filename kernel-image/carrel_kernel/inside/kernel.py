"""IPython's kernel with what Carrel needs beyond it: a listing of variables, answers in time, a history of its own.

Completion and documentation ask the user's objects (`__dir__`, `__getattr__`, `__doc__`), which may do anything; the
listing of variables asks none (`values`).
"""

from __future__ import annotations

import signal
from typing import Any, ClassVar, Final, cast

from ipykernel.ipkernel import IPythonKernel

from carrel_kernel.inside import deadline, once, variables

VARIABLES_REQUEST: Final = "carrel_variables_request"


class CarrelKernel(IPythonKernel):
    """The kernel of every Carrel session. Its methods are coroutines, as ipykernel wants its own to be, too."""

    msg_types: ClassVar[list[str]] = [*IPythonKernel.msg_types, VARIABLES_REQUEST]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        once.know_parameters()
        self._transforming = once.Transforming(self.shell)

    def pre_handler_hook(self) -> None:
        """Get ready for a request: let interrupts be errors, and forget the last cell."""
        self._transforming.begin()
        self.saved_sigint_handler = once.set_handler(signal.SIGINT, signal.default_int_handler)

    def post_handler_hook(self) -> None:
        """Let interrupts be ignored again."""
        once.set_handler(signal.SIGINT, self.saved_sigint_handler)

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        """Publish what the kernel does, and at the end of a request all that it has led to."""
        super()._publish_status(status, channel, parent)  # pyright: ignore[reportUnknownMemberType]
        if status != "busy":
            self.iopub_thread.hurry()
            self.shell_channel_thread.manager.hurry()

    async def carrel_variables_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Answer the host's question for the variables."""
        shell: Any = self.shell
        session: Any = self.session
        listing: dict[str, Any] = {"variables": [], "truncated": True}
        deadline.answered(variables.add_to, listing, shell.user_ns, shell.user_ns_hidden, otherwise=None)
        session.send(stream, "carrel_variables_reply", listing, parent, ident)

    async def do_complete(self, code: str, cursor_pos: int) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Complete, or find nothing."""
        nothing: dict[str, Any] = {
            "status": "ok",
            "matches": [],
            "cursor_start": cursor_pos,
            "cursor_end": cursor_pos,
            "metadata": {},
        }
        base = cast("Any", super())
        return deadline.answered(base.do_complete, code, cursor_pos, otherwise=nothing)

    async def do_inspect(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()
    ) -> Any:
        """Document, or find nothing."""
        nothing: dict[str, Any] = {"status": "ok", "found": False, "data": {}, "metadata": {}}
        base = cast("Any", super())
        return deadline.answered(base.do_inspect, code, cursor_pos, detail_level, omit_sections, otherwise=nothing)

    def do_history(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what was run; IPython says 0 for its own session when it is asked for a range of it."""
        reply: dict[str, Any] = super().do_history(*args, **kwargs)
        shell: Any = self.shell
        own = shell.history_manager.session_number
        return {**reply, "history": [(session or own, *rest) for session, *rest in reply["history"]]}
