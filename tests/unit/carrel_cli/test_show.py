"""What the command line prints of a run, and where it saves files.

Plan: a whole run in order; changes of a plan alone; long outputs are cut with the number of lines left out; control
sequences of code never reach the terminal; what rich would read as markup is printed as it is, wherever it stands;
names from a server stay below the folder.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from carrel_cli.errors import Usage
from carrel_cli.run import check_data, safe_path, save_artifacts
from carrel_cli.show import RunPrinter, clean, session_table, state
from carrel_client import Client, Event, Session


def printed(*events: Event) -> tuple[str, RunPrinter]:
    console = Console(record=True, width=100, color_system=None, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    printer = RunPrinter(console)
    for event in events:
        printer.take(event)
    console.file.close()
    return console.export_text(), printer


def literally(what: object) -> str:
    """Return what a console prints of something that is no event."""
    console = Console(width=200, color_system=None, file=io.StringIO())
    console.print(what)
    return console.file.getvalue()


def stdout(text: str) -> Event:
    outputs = [{"output_type": "stream", "name": "stdout", "text": text}]
    return Event("cell.outputs", {"execution_id": "7", "outputs": outputs}, seq=1)


def test_a_run_in_order():
    text, printer = printed(
        Event("plan", {"steps": [{"title": "Load"}, {"title": "Sum"}]}, seq=1),
        Event("cell.intended", {"code": "print(42)"}, seq=2),
        Event("output", {"text": "provisional"}, live=True),
        stdout("42\n"),
        Event("cell.finished", {"execution_id": "7", "status": "ok"}, seq=4),
        Event("artifact.stored", {"name": "plot.png", "category": "artifacts", "artifact_id": "7"}, seq=5),
        Event("artifact.stored", {"name": "sales.csv", "category": "data", "artifact_id": "8"}, seq=6),
        Event("message.assistant", {"content": "It is **42**."}, seq=7),
        Event("run.finished", {"status": "succeeded"}, seq=8),
    )
    places = [text.index(part) for part in ("Plan", "○ Load", "Code", "print(42)", "Output", "Answer", "It is 42.")]
    assert places == sorted(places)
    assert "provisional" not in text
    assert list(printer.artifacts) == ["plot.png"]
    assert printer.finished == {"status": "succeeded"}


def test_only_what_changed_of_a_plan():
    text, _ = printed(
        Event("plan", {"steps": [{"title": "Load"}, {"title": "Sum"}]}, seq=1),
        Event("plan", {"steps": [{"title": "Load", "status": "done"}, {"title": "Sum"}]}, seq=2),
    )
    assert text.count("Plan") == 1
    assert text.count("Load") == 2
    assert text.count("Sum") == 1


def test_failed_cell():
    error = {"output_type": "error", "traceback": ["\x1b[31mValueError\x1b[0m: no"]}
    text, _ = printed(
        Event("cell.outputs", {"execution_id": "7", "outputs": [error]}, seq=1),
        Event("cell.finished", {"execution_id": "7", "status": "timeout", "message": "over 5 s"}, seq=2),
    )
    assert "ValueError: no" in text
    assert "The cell ended with timeout: over 5 s" in text


def test_what_programs_hand_over_is_not_shown():
    facts = {"output_type": "display_data", "data": {"application/vnd.carrel.facts": '{"n": 1}', "text/plain": ""}}
    assert printed(Event("cell.outputs", {"execution_id": "7", "outputs": [facts]}, seq=1))[0] == ""


def test_long_output_in_parts_is_cut_and_says_so():
    lines = [f"line {number}\n" for number in range(1000)]
    end = Event("cell.finished", {"execution_id": "7", "status": "ok"}, seq=9)
    text, _ = printed(stdout("".join(lines[:40])), stdout("".join(lines[40:500])), stdout("".join(lines[500:])), end)
    assert text.count("Output") == 1
    assert "line 59" in text
    assert "line 60" not in text
    assert "940 more lines" in text


@pytest.mark.parametrize(
    "text", ["\x1b[2Jx", "\x1b]0;title\x07x", "\x1b[?1049hx", "\rx", "\x08\x08x", "\x9b31mx", "\x1bcx"]
)
def test_control_sequences_are_taken_out(text):
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in clean(text))
    assert clean(text).endswith("x")


MARKUP = ["[bold]loud[/bold]", "[/]", "[x] done", "[ ] open", "[link=file:///etc]here[/link]", ":smile:", "\\[red]"]


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_text_wherever_it_stands(text):
    error = {"output_type": "error", "traceback": [f"KeyError: {text}"]}
    result = {"output_type": "execute_result", "data": {"text/plain": f"= {text}"}}
    shown, _ = printed(
        Event("plan", {"steps": [{"title": f"Plan {text}"}]}, seq=1),
        Event("cell.intended", {"code": f"x = {text!r}"}, seq=2),
        stdout(f"out {text}\n"),
        Event("cell.outputs", {"execution_id": "7", "outputs": [error, result]}, seq=4),
        Event("cell.finished", {"execution_id": "7", "status": "error", "message": f"said {text}"}, seq=5),
        Event("message.assistant", {"content": f"Answer `{text}`"}, seq=6),
    )
    wanted = [f"○ Plan {text}", f"x = {text!r}", f"out {text}", f"KeyError: {text}", f"= {text}", f"error: said {text}"]
    assert [part for part in [*wanted, f"Answer {text}"] if part not in shown] == []


@pytest.mark.parametrize("text", MARKUP)
def test_markup_in_the_names_of_sessions_and_files(text, tmp_path):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    session = Session("7", text, "active", "demo/analyst", {}, 1, now, now)
    assert f" {text} " in literally(session_table([session]))

    class Downloads(Client):
        def __init__(self):
            self.saved = {}

        def download(self, artifact_id, target):
            self.saved[artifact_id] = target
            return target

    client, console = Downloads(), Console(width=200, color_system=None, file=io.StringIO())
    printer = RunPrinter(console)
    printer.artifacts["a"] = {"artifact_id": "1"}
    printer.artifacts[f"{text}\x1b[2J.png"] = {"artifact_id": "8"}
    save_artifacts(client, printer, tmp_path, console)
    assert f"Saved {tmp_path / safe_path(text + '.png')}" in console.file.getvalue()
    assert "\x1b" not in console.file.getvalue()
    assert set(client.saved) == {"1", "8"}


def test_tabs_and_lines_stay():
    assert clean("a\tb\nc\r\nd") == "a\tb\nc\nd"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("plot.png", "plot.png"),
        ("plots/a.png", "plots/a.png"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("..\\..\\x", "x"),
        ("C:\\x", "C_/x"),
        ("..", "artifact"),
        ("", "artifact"),
    ],
)
def test_names_stay_below_the_folder(name, path):
    assert safe_path(name) == Path(path)


def test_data_that_cannot_be_uploaded(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_text("1")
    (tmp_path / "x.csv").write_text("1")
    check_data([tmp_path / "x.csv"])
    with pytest.raises(Usage, match=r"none\.csv: no such file"):
        check_data([tmp_path / "none.csv"])
    with pytest.raises(Usage, match="not a file"):
        check_data([tmp_path / "a"])
    with pytest.raises(Usage, match=r"x\.csv: two data files have this name"):
        check_data([tmp_path / "x.csv", tmp_path / "a" / "x.csv"])


def test_what_is_lost_is_one_line_each():
    reasons = {"lock": "TypeError: cannot\npickle \x1b[31m[red]", "g": "a generator"}
    lost = [{"name": name, "reason": reason} for name, reason in reasons.items()]
    assert literally(state(2, 1, "saved", lost)).splitlines() == [
        "2 variables and 1 files saved",
        "not saved: lock: TypeError: cannot pickle [red]",
        "not saved: g: a generator",
    ]
