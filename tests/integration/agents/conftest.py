"""A real interpreter for the analyst's code: one child process that runs cells in a workspace with `data/`.

The child stands for the kernel: own namespace for each question, working directory with the files, output and
displays captured, new files reported. Starting it once keeps hundreds of cells fast.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from carrel_gateway.agents.decide import CallModel, Finish, GiveAnswer, Limits, RecordPlan, RunCode, decide, review
from carrel_gateway.agents.models.analyst.model import reply_to
from carrel_gateway.agents.protocols import AgentView, FileView, Turn
from carrel_gateway.agents.state import fold
from carrel_wire.log import ArtifactStored, CellFinished, CellOutputs, LogPayload, ModelCalled, PlanMade

_CHILD = """
import contextlib, io, json, os, sys, traceback, warnings
import IPython.display
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
replies = sys.stdout
namespace, displayed = {}, []
IPython.display.display = lambda data, raw: displayed.append(data)
for line in sys.stdin:
    request = json.loads(line)
    if request.get("reset"):
        namespace = {}
        os.chdir(request["reset"])
    before = {name: os.stat(name).st_mtime_ns for name in os.listdir(".")}
    out, error = io.StringIO(), None
    displayed.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            exec(compile(request["code"], "cell", "exec"), namespace)
        except Exception:
            error = traceback.format_exc()
    plt.close("all")
    made = sorted(n for n in os.listdir(".") if os.path.isfile(n) and before.get(n) != os.stat(n).st_mtime_ns)
    replies.write(json.dumps({"stdout": out.getvalue(), "error": error, "files": made, "displays": displayed}) + "\\n")
    replies.flush()
"""
RUN = UUID("01936f7e-1111-7222-8333-444455556666")


@dataclass
class Told:
    """What came of a question."""

    answer: str
    codes: list[str] = field(default_factory=list)
    stdout: str = ""
    errors: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    plan: list[tuple[str, str]] = field(default_factory=list)


class Interpreter:
    """The child process, and the loop's own rules around it."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, question: str, workspace: Path, turns: tuple[Turn, ...] = ()) -> Told:
        """Carry a run out on the analyst, with the loop's pure parts and an in-memory log."""
        files = tuple(
            FileView(f"data/{path.name}", path.stat().st_size) for path in sorted((workspace / "data").iterdir())
        )
        log: list[LogPayload] = []
        told = Told("")
        fresh = True
        for _ in range(40):
            state = fold(RUN, log)
            action = decide(state, Limits())
            match action:
                case CallModel():
                    seen = review(state, Limits())
                    view = AgentView(question, files, turns, tuple(seen.exchanges), seen.plan)
                    log.append(
                        ModelCalled(run_id=RUN, model="demo/analyst", purpose=action.purpose, text=reply_to(view))
                    )
                case RecordPlan(steps=steps):
                    log.append(PlanMade(run_id=RUN, steps=list(steps)))
                    told.plan = [(step.title, step.status) for step in steps]
                case RunCode(code=code, execution_id=execution_id):
                    done = self.run(code, workspace if fresh else None)
                    fresh = False
                    told.codes.append(code)
                    told.stdout += done["stdout"]
                    outputs: list[dict[str, Any]] = [
                        {"output_type": "stream", "name": "stdout", "text": done["stdout"]}
                    ]
                    outputs += [{"output_type": "display_data", "data": data} for data in done["displays"]]
                    if done["error"]:
                        told.errors.append(done["error"])
                        outputs.append({"output_type": "error", "traceback": done["error"].splitlines()})
                    log.append(CellOutputs(execution_id=execution_id, last_n=1, outputs=outputs))
                    for name in done["files"]:
                        told.artifacts.append(name)
                        log.append(
                            ArtifactStored(
                                artifact_id=RUN,
                                name=name,
                                version=1,
                                size=1,
                                content_type="image/png",
                                sha256="",
                                category="artifacts",
                                execution_id=execution_id,
                            )
                        )
                    log.append(CellFinished(execution_id=execution_id, status="error" if done["error"] else "ok"))
                case GiveAnswer(text=text):
                    told.answer = text
                    return told
                case Finish():
                    raise AssertionError(f"the run failed: {action}")
        raise AssertionError("the run did not end")

    def run(self, code: str, reset: Path | None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"code": code, **({"reset": str(reset)} if reset else {})}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the interpreter is gone"
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    child = Interpreter()
    yield child
    child.close()
