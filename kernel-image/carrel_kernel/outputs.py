"""From messages of a kernel to execution events: joined text, checked shapes, and a limit with a file beyond it.

The order is the kernel's. Text is joined up to 64 KiB or 20 ms; nothing is dropped silently: what is over the limit of
one execution goes to a file of the workspace, and one `truncated` event says how much it was.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from carrel_kernel.executions import Execution
from carrel_kernel.protocol import count_of, object_of
from carrel_wire.events import Clear, Display, Error, Result, Stderr, Stdout, Truncated

CHUNK_CHARACTERS: Final = 64 * 1024
JOIN_SECONDS: Final = 0.02
_EVENT_BYTES: Final = 64
"""What an event costs beside its content, so that a million empty ones count too."""
_MAX_TRACEBACK_CHARACTERS: Final = 1024 * 1024
_MAX_NAME: Final = 10_000


class Overflow:
    """The file for output over the limit, made when first needed. A full disk makes it shorter, and is no error."""

    def __init__(self, path: Path, limit_bytes: int, may_write: Callable[[], bool]) -> None:
        self._path = path
        self._room = limit_bytes
        self._may_write = may_write
        self._file: int | None = None
        self._failed = False

    def write(self, data: bytes) -> None:
        """Append data, as far as there is room."""
        if self._failed or not self._room:
            return
        data = data[: self._room]
        self._room -= len(data)
        try:
            if self._file is None:
                self._file = self._open()
            os.write(self._file, data)
        except OSError:
            self._failed = True

    def _open(self) -> int:
        if not self._may_write():
            raise OSError("the disk is nearly full")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)

    def close(self) -> bool:
        """Close the file; whether there is one."""
        if self._file is None:
            return False
        os.close(self._file)
        self._file = None
        return True


class Outputs:
    """Collects what one execution puts out."""

    def __init__(self, execution: Execution, overflow: Overflow, *, limit_bytes: int, overflow_path: str) -> None:
        self.bytes_out = 0
        """Bytes of content that the code put out, delivered or not."""
        self.error: Error | None = None
        self._execution = execution
        self._overflow = overflow
        self._overflow_path = overflow_path
        self._limit = limit_bytes
        self._room = limit_bytes
        self._omitted = 0
        self._stream = ""
        self._parts: list[str] = []
        self._characters = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, msg_type: str, content: dict[str, Any], size: int) -> bool:
        """Take one output message, `size` being its content's bytes; false when it is of another type."""
        match msg_type:
            case "stream":
                self._text(content)
            case "display_data" | "update_display_data" | "execute_result":
                self._flush_text()
                self._rich(msg_type, content, size)
            case "clear_output":
                self._flush_text()
                if self._spend(0):
                    self._execution.emit(Clear(n=self._execution.next_n, wait=content.get("wait") is True))
            case "error":
                self._flush_text()
                self._error(content)
            case _:
                return False
        return True

    def close(self) -> None:
        """Emit what is held, and `truncated` when something was left out."""
        self._flush_text()
        if self._omitted:
            path = self._overflow_path if self._overflow.close() else None
            self._execution.emit(
                Truncated(n=self._execution.next_n, omitted_bytes=self._omitted, limit_bytes=self._limit, path=path)
            )

    @property
    def truncated(self) -> bool:
        """Whether something was left out."""
        return self._omitted > 0

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
        room = self._room - _EVENT_BYTES
        if not self._omitted and 0 < room < _size(text):  # the cut: what fits goes out, the rest to the file
            kept = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
            if kept:
                self._emit_text(kept)
            self._room = 0
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
        """Count an output and return whether it may go out; nothing may after the first that does not fit."""
        self.bytes_out += size
        if self._omitted or self._execution.lossy or size + _EVENT_BYTES > self._room:
            self._omitted += max(size, 1)
            self._room = 0
            return False
        self._room -= size + _EVENT_BYTES
        return True

    def _rich(self, msg_type: str, content: dict[str, Any], size: int) -> None:
        data = object_of(content.get("data"))
        if not self._spend(size):
            self._overflow.write(msgspec.json.encode(data) + b"\n")
            return
        metadata = object_of(content.get("metadata"))
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
        """Emit an error whether there is room or not: why a cell failed is never left out, only shortened."""
        lines = content.get("traceback")
        room = _MAX_TRACEBACK_CHARACTERS
        traceback: list[str] = []
        for line in cast("list[Any]", lines) if isinstance(lines, list) else []:
            traceback.append(str(line)[:room])
            room -= len(traceback[-1])
            if room <= 0:
                traceback.append("(the traceback goes on)")
                break
        self.error = Error(
            n=self._execution.next_n,
            name=str(content.get("ename", ""))[:_MAX_NAME],
            value=str(content.get("evalue", ""))[:_MAX_TRACEBACK_CHARACTERS],
            traceback=traceback,
        )
        self.bytes_out += self._execution.emit(self.error)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
