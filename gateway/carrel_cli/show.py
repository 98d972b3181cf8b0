"""Prints the events of a run as they come (plan, code, output, answer), and sessions. Decides and fetches nothing.

Whatever comes from a server or a file is printed literally: `line` takes out what would command the terminal, and makes
an object that rich does not read as its markup, so that `[x]` and `[/]` are just that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from carrel_client import Event, Session

_CONTROL: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences, such as colours and cursor moves (ECMA-48)
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # commands to the terminal, such as its title
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # all other controls but tab and new line
)
_MARKS: Final = {"open": "○", "done": "●", "skipped": "-"}
_MAX_OUTPUT_LINES: Final = 60
"""Of one cell: more would bury the answer; all of it is in the history and in the notebook."""


class RunPrinter:
    """Shows one run, and remembers what is needed at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan: list[str] = []
        self._statuses: list[str] = []
        self._cell: str | None = None
        self._lines = 0
        self.artifacts: dict[str, dict[str, Any]] = {}
        """Name → payload of the last version of each file that the run made."""
        self.answer: str | None = None
        self.finished: dict[str, Any] | None = None

    def take(self, event: Event) -> None:
        """Show one event; live ones are left out, since all they say is committed soon after."""
        if event.live:
            return
        show = {
            "plan": self._show_plan,
            "cell.intended": self._show_code,
            "cell.outputs": self._show_outputs,
            "cell.finished": self._show_end_of_cell,
            "artifact.stored": self._keep_artifact,
            "message.assistant": self._show_answer,
            "run.taken_over": self._show_takeover,
            "run.finished": self._keep_end,
        }.get(event.type)
        if show is not None:
            show(event.payload)

    def _show_plan(self, payload: dict[str, Any]) -> None:
        titles = [step["title"] for step in payload["steps"]]
        statuses = [step.get("status", "open") for step in payload["steps"]]
        if titles != self._plan:
            self._heading("Plan")
            changed = range(len(titles))
        else:
            changed = [place for place, status in enumerate(statuses) if status != self._statuses[place]]
        for place in changed:
            self._console.print(line(f"  {_MARKS[statuses[place]]} {titles[place]}", "cyan"))
        self._plan, self._statuses = titles, statuses

    def _show_code(self, payload: dict[str, Any]) -> None:
        self._heading("Code")
        code = Syntax(clean(payload["code"]), "python", theme="ansi_light", background_color="default", word_wrap=True)
        self._console.print(Padding(code, (0, 2)))

    def _show_outputs(self, payload: dict[str, Any]) -> None:
        text = clean("".join(_text_of(output) for output in payload["outputs"])).rstrip()
        if not text:
            return
        if payload["execution_id"] != self._cell:  # the outputs of a long cell come in parts
            self._heading("Output")
            self._cell, self._lines = payload["execution_id"], 0
        lines = text.splitlines()
        for one in lines[: max(0, _MAX_OUTPUT_LINES - self._lines)]:
            self._console.print(line(f"  {one}"), soft_wrap=True)
        self._lines += len(lines)

    def _show_end_of_cell(self, payload: dict[str, Any]) -> None:
        left = self._lines - _MAX_OUTPUT_LINES
        if payload["execution_id"] == self._cell and left > 0:
            self._console.print(line(f"  … {left} more lines, in the session's history and notebook", "dim"))
        if payload["status"] != "ok":
            message = f": {payload['message']}" if payload.get("message") else ""
            self._console.print(line(f"  The cell ended with {payload['status']}{message}", "yellow"))

    def _keep_artifact(self, payload: dict[str, Any]) -> None:
        if payload["category"] != "data":
            self.artifacts[payload["name"]] = payload

    def _show_answer(self, payload: dict[str, Any]) -> None:
        self.answer = clean(payload["content"])
        self._heading("Answer")
        self._console.print(Padding(Markdown(self.answer, hyperlinks=False), (0, 2)))

    def _show_takeover(self, _: dict[str, Any]) -> None:
        self._console.print(line("  The gateway was replaced; another one goes on with this run.", "dim"))

    def _keep_end(self, payload: dict[str, Any]) -> None:
        self.finished = payload

    def _heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Rule(text, align="left", style="dim"))


def session_table(sessions: Iterable[Session]) -> Table:
    """Return sessions as a table, one a row."""
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "TITLE", "STATUS", "MODEL", "UPDATED"):
        table.add_column(heading, no_wrap=heading == "ID")
    for item in sessions:
        status = "suspended" if item.suspended_at else item.status
        told = (item.id, item.title, status, item.model, f"{item.updated_at:%Y-%m-%d %H:%M}")
        table.add_row(*map(line, told))
    return table


def state(variables: int, files: int, word: str, lost: Iterable[dict[str, Any]]) -> Text:
    """Return how much of a session's state is saved or back, and line by line what is not."""
    lines = [f"{variables} variables and {files} files {word}"]
    lines += [f"not {word}: {item['name']}: {item['reason']}".replace("\n", " ") for item in lost]
    return Text("\n").join(line(part) for part in lines)


def line(text: str, style: str = "") -> Text:
    """Return text for the terminal as it is: no markup is read in it, and no control sequence is left."""
    return Text(clean(text), style=style)


def clean(text: str) -> str:
    """Return text that can only be read: without the control sequences that move a terminal's cursor or worse."""
    return _CONTROL.sub("", text)


def _text_of(output: dict[str, Any]) -> str:
    kind = output["output_type"]
    if kind == "stream":
        return str(output["text"])
    if kind == "error":
        return "\n".join(str(line) for line in output["traceback"]) + "\n"
    plain = output.get("data", {}).get("text/plain")
    return f"{plain}\n" if plain else ""
