"""`demo/analyst`: answers questions about tables by rules and code, without a language model.

Each reply follows from the view alone: which cells ran, what came of them. First a cell that loads and profiles the
files, then, if the question has conditions, one that selects rows, then the analysis; the answer is written from the
facts that the cells handed over. Files are read anew in every run: variables of earlier runs may have changed since.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from carrel_gateway.agents.models.analyst import load
from carrel_gateway.agents.models.analyst.analyses import ANALYSES, Analysis, prediction
from carrel_gateway.agents.models.analyst.code import join, selection
from carrel_gateway.agents.models.analyst.columns import mask
from carrel_gateway.agents.models.analyst.intents import understand, unsupported
from carrel_gateway.agents.models.analyst.refusals import cannot_load, failed, no_files, no_rows, refused
from carrel_gateway.agents.models.analyst.request import Request, Unanswerable
from carrel_gateway.agents.models.analyst.table import Table, facts_of, tables_of
from carrel_gateway.agents.models.analyst.writing import SIGNATURE, paragraphs
from carrel_gateway.agents.protocols import AgentView, FileView, ModelChunk, StepRecord, Usage

NAME: Final = "demo/analyst"
_FEWEST_TO_LEARN: Final = 40
_EARLIER_TURNS: Final = 3
_RETRIES: Final = 2
"""Kernels may go away so often before a question is given up."""
_TAG: Final = re.compile(r"<(?=/?(?:plan|code|answer|think)\b)", re.IGNORECASE)
"""Names and values of a table may look like the tags that replies speak with; they must not end or begin one."""
_LEFT_OUT: Final = re.compile(r"^\d+ lines of .* do not fit the header and are left out$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Say:
    """What the next reply holds."""

    code: str | None = None
    answer: str | None = None
    plan: tuple[tuple[str, str], ...] = ()
    """Marks and titles."""

    def text(self) -> str:
        steps = "\n".join(f"- [{mark or ' '}] {_TAG.sub('&lt;', ' '.join(title.split()))}" for mark, title in self.plan)
        code = _TAG.sub(r"\\x3c", self.code) if self.code else None  # the same character in a string of Python
        return "\n".join(
            [
                *([f"<plan>\n{steps}\n</plan>"] if steps else []),
                *([f"<code>\n{code}\n</code>"] if code else []),
                *([f"<answer>\n{_TAG.sub('&lt;', self.answer)}\n\n{SIGNATURE}\n</answer>"] if self.answer else []),
            ]
        )


@dataclass(slots=True)
class _Work:
    """A question while it is worked on."""

    view: AgentView
    files: list[FileView]
    steps: Iterator[StepRecord]
    options: load.Options = field(default_factory=load.Options)
    loaded: str = ""
    retries: int = _RETRIES

    @property
    def load_title(self) -> str:
        return f"Load {', '.join(file.name.removeprefix('data/') for file in self.files)} and look at the columns"


class AnalystModel:
    """The rule-based analyst as a model."""

    name = NAME

    async def stream(self, view: AgentView) -> AsyncIterator[ModelChunk]:
        """Yield the reply line by line."""
        for line in reply_to(view).splitlines(keepends=True):
            yield ModelChunk(line)
        yield ModelChunk("", Usage(input_tokens=0, output_tokens=0, cost=0.0, finish_reason="stop"))


def reply_to(view: AgentView) -> str:
    """Return the reply to the view."""
    said = _reply(view)
    if said.code and view.notices and "no more code is run" in view.notices[-1]:
        last = view.steps[-1]
        said = _Say(answer=failed(last.error or last.status))
    if said.answer and not said.plan:  # an answer that says why there is none: what was not done is not needed any more
        marks = {"done": "x", "open": "-", "skipped": "-"}
        said = replace(said, plan=tuple((marks[step.status], step.title) for step in view.plan))
    return said.text()


def _reply(view: AgentView) -> _Say:
    files = load.readable(view.files)
    if not files:
        return _Say(answer=no_files(view.files))
    refusal = unsupported(view.question) if not view.steps else None
    if refusal:
        return _Say(answer=refused(refusal, None))
    work = _Work(view, load.chosen(files, view.question), iter(view.steps))
    tables = _load(work)
    if isinstance(tables, _Say):
        return tables
    table = _best(tables, view.question)
    request = _request(view, table)
    if isinstance(request, Unanswerable):
        return _Say(answer=refused(request, table), plan=(("x", work.load_title),))
    return _analyse(work, tables, table, request)


def _load(work: _Work) -> list[Table] | _Say:
    """Return the tables, or what to say to get them."""
    names = [file.name for file in work.files]
    while True:
        work.loaded = load.code(work.files, _spoken(work.view), work.options)
        step = next(work.steps, None)
        if step is None:
            first = (("", work.load_title), ("", "Work out the answer in code"))
            return _Say(code=work.loaded, plan=() if work.view.steps else first)
        facts = facts_of(step.displays)
        if step.status == "ok" and facts:
            return tables_of(facts)
        if _is_lost(step) and work.retries:
            work.retries -= 1
            continue
        better = load.correction(step.error or "", work.options, names) if step.status != "ok" else None
        if better is None:
            return _Say(answer=cannot_load(names, step.error or "The code handed over no facts."))
        work.options = better


def _spoken(view: AgentView) -> str:
    """Return the question together with those before it, in which values may be named too."""
    return " / ".join([*(turn.question for turn in view.turns[-_EARLIER_TURNS:]), view.question])


def _best(tables: list[Table], question: str) -> Table:
    """Return the table whose columns and values the question names most surely."""

    def score(table: Table) -> float:
        found = mask(question, table)
        return sum(mention.score for mention in found.columns) + len(found.values)

    return max(tables, key=score)


def _request(view: AgentView, table: Table) -> Request | Unanswerable:
    earlier: Request | None = None
    for turn in view.turns[-_EARLIER_TURNS:]:
        found = understand(turn.question, table, earlier)
        earlier = found if isinstance(found, Request) else earlier
    request = understand(view.question, table, earlier)
    if isinstance(request, Unanswerable):
        return request
    if request.intent == "predict":
        return _learnable(request, table)
    if not table.rows:
        return Unanswerable(f"`{table.file}` has columns but no rows.")
    return request


def _learnable(request: Request, table: Table) -> Request | Unanswerable:
    target = table[request.targets[0]]
    numbers, categories = prediction.features_of(request, table)
    if table.rows - target.missing < _FEWEST_TO_LEARN:
        return Unanswerable(
            f"{table.rows - target.missing} rows are too few to fit a model and score it on held-out rows."
        )
    if target.kind == "date" or (target.kind == "text" and target.distinct > 0.2 * table.rows):
        return Unanswerable(f"`{target.name}` has {target.distinct} different values; that is no target for a model.")
    if target.distinct < 2:
        return Unanswerable(f"`{target.name}` has only one value; there is nothing to predict.")
    if not numbers and not categories:
        return Unanswerable("There is no other column to predict it from.")
    return request


def _analyse(work: _Work, tables: list[Table], table: Table, request: Request) -> _Say:
    """Run the cells of the request one after the other, then answer."""
    analysis = ANALYSES[request.intent]
    choose = f"df = tables[{table.file!r}]" if len(tables) > 1 else ""
    select = selection(request, table) if request.filters else ""
    first = join(choose, select) if select else ""
    last = analysis.code(request, table) if select else join(choose, analysis.code(request, table))
    plan = _plan(work, analysis, request)
    if select:
        facts = _facts(work, first, first, plan)
        if isinstance(facts, _Say):
            return facts
        if not facts["selected"]:
            return _Say(
                answer=no_rows(request, table, int(facts["rows"])), plan=tuple(("x", title) for _, title in plan[:2])
            )
        plan = ()
    facts = _facts(work, last, join(first, last) if first else last, plan)
    if isinstance(facts, _Say):
        return facts
    answer = paragraphs(
        analysis.answer(request, facts), _plots(work.view), _notes(work.view, request, table, several=len(tables) > 1)
    )
    return _Say(answer=answer, plan=tuple(("x", title) for _, title in _plan(work, analysis, request)))


def _plan(work: _Work, analysis: Analysis, request: Request) -> tuple[tuple[str, str], ...]:
    title = analysis.title(request)
    if not request.filters:
        return (("x", work.load_title), ("", title))
    conditions = " and ".join(one.text for one in request.filters)
    return (("x", work.load_title), ("", f"Select the rows where {conditions}"), ("", title))


def _facts(work: _Work, code: str, whole: str, plan: tuple[tuple[str, str], ...]) -> dict[str, Any] | _Say:
    """Return the facts that the cell handed over, or what to say to get them; lost variables are made again."""
    step = next(work.steps, None)
    if step is None:
        return _Say(code=code, plan=plan)
    while _is_lost(step) and work.retries:
        work.retries -= 1
        step = next(work.steps, None)
        if step is None:
            return _Say(code=f"{work.loaded}\n\n{whole}")
    facts = facts_of(step.displays)
    if step.status != "ok" or facts is None:
        return _Say(answer=failed(step.error or "The code handed over no facts."))
    return facts


def _is_lost(step: StepRecord) -> bool:
    """Whether the cell, or what it needs, went with a kernel; the analyst's cells only read files and may run again."""
    return step.status in ("outcome_unknown", "kernel_died") or "NameError: name" in (step.error or "")


def _unreadable(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


def _plots(view: AgentView) -> str:
    names = [name for step in view.steps for name in step.artifacts if name.endswith(".png")]
    return f"Plot: {', '.join(f'`{name}`' for name in dict.fromkeys(names))}" if names else ""


def _notes(view: AgentView, request: Request, table: Table, *, several: bool) -> str:
    notes = list(request.notes)
    used = {*request.targets, *request.by, *request.features, *(one.column for one in request.filters)}
    notes += [
        f"{_unreadable(column.unreadable)} of {column.name} could not be read and counted as missing"
        for column in table.columns
        if column.name in used and column.unreadable
    ]
    notes += [line for step in view.steps for line in _LEFT_OUT.findall(step.stdout)]
    if several:
        notes.append(f"of the files, `{table.file}` was taken because its columns fit the question best")
    return "\n".join(f"- Note: {note}." for note in dict.fromkeys(notes))
