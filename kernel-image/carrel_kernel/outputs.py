"""From messages of a kernel to execution events: joined text, checked shapes, and limits with a file beyond them.

The order is the kernel's. Text is joined up to 64 KiB or 20 ms. Nothing is dropped silently: what is over a limit
(`caps`) goes to a file of the workspace, and one `truncated` event says how much it was and which limit. A message over
its own limit keeps what is small of it, such as its text, and others follow it; over a wider limit nothing does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

import msgspec

from carrel_kernel import protocol
from carrel_kernel.caps import DiskWatch, Meter, Overflow
from carrel_kernel.executions import Execution
from carrel_kernel.protocol import TooComplexError, count_of, object_of
from carrel_wire.events import Clear, Display, Error, MimeBundle, Result, Stderr, Stdout

CHUNK_CHARACTERS: Final = 64 * 1024
JOIN_SECONDS: Final = 0.02
OMITTED: Final = "carrel_omitted_bytes"
"""Where the metadata say how much the kernel itself left out of a message that nothing would have taken."""
_MAX_TRACEBACK_CHARACTERS: Final = 1024 * 1024
_MAX_NAME: Final = 10_000


class Outputs:
    """Collects what one execution puts out."""

    def __init__(
        self, execution: Execution, overflow: Overflow, meter: Meter, disk: DiskWatch, *, overflow_path: str
    ) -> None:
        self.meter = meter
        self.error: Error | None = None
        self._execution = execution
        self._overflow = overflow
        self._overflow_path = overflow_path
        self._disk = disk
        self._stream = ""
        self._parts: list[str] = []
        self._characters = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, msg_type: str, raw_content: bytes) -> bool:
        """Take one output message; false when it is of another type.

        Raises
        ------
        MalformedError
            Its content is no JSON object.
        """
        match msg_type:
            case "stream":
                self._text(protocol.content_of(raw_content))
            case "display_data" | "update_display_data" | "execute_result":
                self._flush_text()
                self._rich(msg_type, raw_content)
            case "clear_output":
                self._flush_text()
                if self._spend(0):
                    wait = protocol.content_of(raw_content).get("wait") is True
                    self._execution.emit(Clear(n=self._execution.next_n, wait=wait))
            case "error":
                self._flush_text()
                self._error(protocol.content_of(raw_content))
            case _:
                return False
        return True

    def close(self) -> None:
        """Emit what is held, and `truncated` when something was left out."""
        self._flush_text()
        path = self._overflow_path if self._overflow.close() else None
        if told := self.meter.tell(self._execution.next_n, path):
            self._execution.emit(told)

    # ------------------------------------------------------------------ text

    def _text(self, content: dict[str, Any]) -> None:
        name = "stderr" if content.get("name") == "stderr" else "stdout"
        text = content.get("text")
        if not isinstance(text, str) or not text:
            return
        if name != self._stream:
            self._flush_text()
            self._stream = name
        self._parts.append(text)
        self._characters += len(text)
        if self._characters >= CHUNK_CHARACTERS:
            self._flush_text()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(JOIN_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush_text()
        self._execution.flush()

    def _flush_text(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not self._parts:
            return
        text = self._parts[0] if len(self._parts) == 1 else "".join(self._parts)
        self._parts = []
        self._characters = 0
        for start in range(0, len(text), CHUNK_CHARACTERS):
            self._chunk(text[start : start + CHUNK_CHARACTERS])

    def _chunk(self, text: str) -> None:
        room = self.meter.room
        if not self.meter.closed and 0 < room < _size(text):  # the cut: what fits goes out, the rest to the file
            kept = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
            if kept:
                self._emit_text(kept)
            self.meter.close()
            text = text[len(kept) :]
        self._emit_text(text)

    def _emit_text(self, text: str) -> None:
        if self._spend(_size(text)):
            event = Stderr if self._stream == "stderr" else Stdout
            self._execution.emit(event(n=self._execution.next_n, text=text))
        else:
            self._overflow.write(text.encode("utf-8", "replace"))

    # ------------------------------------------------------------------ the rest

    def _spend(self, size: int) -> bool:
        return self.meter.spend(size, lossy=self._execution.lossy or not self._disk.allows(size))

    def _rich(self, msg_type: str, raw: bytes) -> None:
        if len(raw) <= self.meter.caps.message_bytes:
            with suppress(TooComplexError):
                self._whole(msg_type, raw, protocol.content_of(raw))
                return
        content = self._small_of(raw)
        data = object_of(content.get("data"))
        if self._spend(len(msgspec.json.encode(data))):
            self._show(msg_type, data, content)

    def _whole(self, msg_type: str, raw: bytes, content: dict[str, Any]) -> None:
        data = object_of(content.get("data"))
        if self._spend(len(raw)):
            self._show(msg_type, data, content)
        else:
            self._overflow.write(msgspec.json.encode(data) + b"\n")

    def _small_of(self, raw: bytes) -> dict[str, Any]:
        """Return what can be shown of a message that is too large; the whole goes to the file."""
        content = protocol.light_content(raw, self.meter.caps.message_bytes)
        self._overflow.write(raw + b"\n")
        self.meter.leave_out(len(raw) - len(msgspec.json.encode(content["data"])))
        return content

    def _show(self, msg_type: str, data: MimeBundle, content: dict[str, Any]) -> None:
        metadata = object_of(content.get("metadata"))
        omitted = metadata.pop(OMITTED, None)
        if type(omitted) is int and omitted > 0:
            self.meter.leave_out(omitted)
        n = self._execution.next_n
        if msg_type == "execute_result":
            count = count_of(content.get("execution_count")) or 0
            self._execution.emit(Result(n=n, data=data, metadata=metadata, execution_count=count))
            return
        display_id = object_of(content.get("transient")).get("display_id")
        self._execution.emit(
            Display(
                n=n,
                data=data,
                metadata=metadata,
                display_id=display_id[:_MAX_NAME] if isinstance(display_id, str) else None,
                update=msg_type == "update_display_data",
            )
        )

    def _error(self, content: dict[str, Any]) -> None:
        """Emit an error, the first whether there is room or not: why a cell failed is only shortened."""
        lines = content.get("traceback")
        room = _MAX_TRACEBACK_CHARACTERS
        traceback: list[str] = []
        for line in cast("list[Any]", lines) if isinstance(lines, list) else []:
            traceback.append(str(line)[:room])
            room -= len(traceback[-1])
            if room <= 0:
                traceback.append("(the traceback goes on)")
                break
        value = str(content.get("evalue", ""))
        if len(value) > _MAX_TRACEBACK_CHARACTERS:
            value = value[:_MAX_TRACEBACK_CHARACTERS] + "… (the text goes on)"
        first = self.error is None
        self.error = Error(
            n=self._execution.next_n,
            name=str(content.get("ename", ""))[:_MAX_NAME],
            value=value,
            traceback=traceback,
        )
        if first:
            self.meter.bytes_out += self._execution.emit(self.error)
        elif self._spend(len(value) + sum(map(len, traceback))):
            self._execution.emit(self.error)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
