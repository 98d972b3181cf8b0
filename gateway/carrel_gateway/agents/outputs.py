"""A cell's notebook outputs (nbformat 4) as the text that a model reads; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


def cut_head(text: str, limit: int) -> str:
    """Return at most about `limit` characters: the end of the text, with a note where the beginning is left off."""
    if len(text) <= limit:
        return text
    return f"[{len(text) - limit} characters left off here]\n{text[-limit:]}"


def stdout_of(outputs: Iterable[Mapping[str, Any]]) -> str:
    """Return what was printed, standard error included, in order."""
    return "".join(_joined(output.get("text")) for output in outputs if output.get("output_type") == "stream")


def displays_of(outputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the MIME bundles of values and displays, in order."""
    shown = [
        output.get("data") for output in outputs if output.get("output_type") in ("execute_result", "display_data")
    ]
    return [cast("dict[str, Any]", data) for data in shown if isinstance(data, dict)]


def result_of(displays: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of values and displays; what has none, such as an image, is named by its type."""
    texts = (_joined(data.get("text/plain", f"[{', '.join(sorted(data))}]")) for data in displays if data)
    return "\n".join(text for text in texts if text)


def error_of(outputs: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the traceback without colours, or none."""
    for output in outputs:
        if output.get("output_type") == "error":
            raw = output.get("traceback")
            lines = [str(line) for line in cast("list[Any]", raw)] if isinstance(raw, list) else []
            text = _COLOUR.sub("", "\n".join(lines)).strip()
            return text or f"{output.get('ename', 'Error')}: {output.get('evalue', '')}"
    return None


def _joined(text: Any) -> str:
    """Notebook text is a string or a list of lines."""
    return "".join(str(part) for part in cast("list[Any]", text)) if isinstance(text, list) else str(text or "")
