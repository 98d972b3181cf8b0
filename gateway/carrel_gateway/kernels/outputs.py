"""From execution events to outputs in Jupyter's notebook format (nbformat 4), and back to what a reader shows.

A cell's outputs are committed in parts while it runs. What changes earlier outputs (`clear_output`, an update of a
display) is kept as an entry of its own, named as Jupyter's message is, and takes effect when `fold` joins the parts.
Text is never shortened here: neighbouring writes are joined, and large text spreads over several parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

from carrel_wire.events import (
    Clear,
    Display,
    Error,
    ExecutionEvent,
    Result,
    Stderr,
    Stdout,
    Truncated,
    TruncationReason,
)

Output: TypeAlias = dict[str, Any]

_TRUNCATIONS: Final[dict[TruncationReason, str]] = {
    "message": "An output over the limit of {limit} bytes",
    "execution": "Output over the limit of {limit} bytes for one cell",
    "session": "Output over the limit of {limit} bytes for the whole session",
    "disk": "The disk of the session is nearly full",
}

_OVERHEAD_BYTES = 64
"""Of one output beside its text: enough that a million empty ones count."""


def output_of(event: ExecutionEvent) -> Output | None:
    """Return the event as an output; none when it is no output."""
    output: Output | None = None
    match event:
        case Stdout(text=text):
            output = _stream("stdout", text)
        case Stderr(text=text):
            output = _stream("stderr", text)
        case Display(data=data, metadata=metadata, display_id=display_id, update=update):
            kind = "update_display_data" if update else "display_data"
            transient = {"transient": {"display_id": display_id}} if display_id else {}
            output = {"output_type": kind, "data": data, "metadata": metadata, **transient}
        case Result(data=data, metadata=metadata, execution_count=count):
            output = {"output_type": "execute_result", "data": data, "metadata": metadata, "execution_count": count}
        case Error(name=name, value=value, traceback=traceback):
            output = {"output_type": "error", "ename": name, "evalue": value, "traceback": traceback}
        case Clear(wait=wait):
            output = {"output_type": "clear_output", "wait": wait}
        case Truncated(omitted_bytes=omitted, limit_bytes=limit, reason=reason, path=path):
            where = f"; what was left out is in {path}, as far as there was room" if path else ""
            why = _TRUNCATIONS[reason].format(limit=limit)
            output = _stream("stderr", f"\n[{why}: {omitted} bytes were left out{where}.]\n")
        case _:
            pass
    return output


def _stream(name: str, text: str) -> Output:
    return {"output_type": "stream", "name": name, "text": text}


class OutputBatch:
    """The outputs of one cell since its last commit, with their size."""

    def __init__(self) -> None:
        self._outputs: list[Output] = []
        self._texts: list[
            str
        ] = []  # of the stream that is being written; joined once, so many small writes stay linear
        self.size_bytes = 0
        """About what the outputs take, for the decision when to commit."""

    def add(self, event: ExecutionEvent) -> None:
        """Take one event in; what is no output is left out."""
        output = output_of(event)
        if output is None:
            return
        if output["output_type"] == "stream":
            self._write(output)
            return
        self._close_stream()
        self._outputs.append(output)
        self.size_bytes += len(msgspec.json.encode(output))

    def take(self) -> list[Output]:
        """Return the outputs and begin anew."""
        self._close_stream()
        taken, self._outputs, self.size_bytes = self._outputs, [], 0
        return taken

    def _write(self, output: Output) -> None:
        if not (self._outputs and self._texts and self._outputs[-1]["name"] == output["name"]):
            self._close_stream()
            self._outputs.append(output)
            self.size_bytes += _OVERHEAD_BYTES
        self._texts.append(output["text"])
        self.size_bytes += len(output["text"])

    def _close_stream(self) -> None:
        if self._texts:
            self._outputs[-1]["text"] = "".join(self._texts)
            self._texts = []


def events_of(outputs: Iterable[Output]) -> list[ExecutionEvent]:
    """Return committed outputs as events, numbered anew: for a caller that joins after they were committed."""
    events: list[ExecutionEvent] = []
    for n, output in enumerate(outputs, start=1):
        match output["output_type"]:
            case "stream":
                kind = Stdout if output["name"] == "stdout" else Stderr
                events.append(kind(n=n, text=output["text"]))
            case "display_data" | "update_display_data" as name:
                display_id = _display_id(output)
                update = name == "update_display_data"
                display = Display(
                    n=n, data=output["data"], metadata=output["metadata"], display_id=display_id, update=update
                )
                events.append(display)
            case "execute_result":
                count = output["execution_count"]
                events.append(Result(n=n, data=output["data"], metadata=output["metadata"], execution_count=count))
            case "error":
                traceback = output["traceback"]
                events.append(Error(n=n, name=output["ename"], value=output["evalue"], traceback=traceback))
            case "clear_output":
                events.append(Clear(n=n, wait=output["wait"]))
            case _:
                pass
    return events


def fold(parts: Iterable[Output]) -> list[Output]:
    """Return a cell's outputs as a notebook holds them: streams joined, clears and updates applied."""
    shown: list[Output] = []
    texts: list[str] = []  # of the last output while it is a stream; joined once
    clear_at_next = False

    def close_stream() -> None:
        if texts:
            shown[-1] = {**shown[-1], "text": "".join(texts)}
            texts.clear()

    for output in parts:
        kind = output["output_type"]
        if kind == "stream" and texts and shown[-1]["name"] == output["name"] and not clear_at_next:
            texts.append(output["text"])
            continue
        if kind == "update_display_data":
            _update(shown, output)
            continue
        close_stream()
        clears = kind == "clear_output"
        if clear_at_next or (clears and not output.get("wait")):
            shown.clear()
        clear_at_next = clears and bool(output.get("wait"))
        if not clears:
            shown.append(output)
        if kind == "stream":
            texts.append(output["text"])
    close_stream()
    return [{key: value for key, value in output.items() if key != "transient"} for output in shown]


def _update(shown: list[Output], update: Output) -> None:
    wanted = _display_id(update)
    for index, output in enumerate(shown):
        if wanted is not None and _display_id(output) == wanted:
            shown[index] = {**output, "data": update["data"], "metadata": update["metadata"]}


def _display_id(output: Output) -> str | None:
    transient: dict[str, str] = output.get("transient") or {}
    return transient.get("display_id")
