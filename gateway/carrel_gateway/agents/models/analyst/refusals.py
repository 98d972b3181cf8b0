"""What the analyst says when it has no answer: why, and what it can do instead; pure."""

from __future__ import annotations

from carrel_gateway.agents.models.analyst.request import Request, Unanswerable
from carrel_gateway.agents.models.analyst.table import Table
from carrel_gateway.agents.models.analyst.writing import listed, paragraphs
from carrel_gateway.agents.outputs import cut_head
from carrel_gateway.agents.protocols import FileView

_ABILITIES = (
    "It can describe a table, work out statistics (also by group and with conditions), counts, shares and rankings, "
    "compare groups, correlate columns, follow trends, show distributions, outliers and missing values, and fit a "
    "baseline model."
)
_MOST_COLUMNS = 12


def refused(why: Unanswerable, table: Table | None) -> str:
    """Return the answer to a question that cannot be answered."""
    meant = f"Did you mean {' or '.join(f'`{name}`' for name in why.suggestions)}?" if why.suggestions else ""
    return paragraphs(
        f"I cannot answer this. {why.reason} {meant}".strip(), _ABILITIES, _examples(table) if table else ""
    )


def _examples(table: Table) -> str:
    names = [f"`{column.name}`" for column in table.columns[:_MOST_COLUMNS]]
    more = " and more" if len(table.columns) > _MOST_COLUMNS else ""
    questions: list[str] = []
    numbers = [column for column in table.numbers if not table.is_identifier(column) and not column.is_year]
    categories = [column for column in table.categories if not column.is_number]
    if numbers and categories:
        questions.append(f"“average {numbers[0].name} by {categories[0].name}”")
    if len(numbers) > 1:
        questions.append(f"“how does {numbers[0].name} relate to {numbers[1].name}?”")
    try_these = f" Try {listed(questions)}." if questions else ""
    return f"`{table.file}` has the columns {', '.join(names)}{more}.{try_these}"


def no_files(files: tuple[FileView, ...]) -> str:
    """Return the answer when there is nothing to analyse."""
    if files:
        names = ", ".join(f"`{file.name}`" for file in files[:_MOST_COLUMNS])
        return (
            f"I cannot answer this: none of the session's files ({names}) is a table that I read. Upload one as "
            "CSV, TSV, Excel, JSON or Parquet."
        )
    return paragraphs(
        (
            "I cannot answer this: the session has no data file. Upload a table (CSV, TSV, Excel, JSON or "
            "Parquet) and ask again."
        ),
        _ABILITIES,
    )


def cannot_load(names: list[str], error: str) -> str:
    """Return the answer when a file could not be read."""
    return paragraphs(
        f"I could not read {listed([f'`{name}`' for name in names])} as a table: {_last_line(error)}",
        (
            "Check that it is a table in CSV, TSV, Excel, JSON or Parquet form with a line of column names, "
            "and upload it again."
        ),
    )


def failed(error: str) -> str:
    """Return the answer when the code of the analysis failed."""
    return paragraphs(
        f"I could not work this out: the code ended with `{_last_line(error)}`",
        (
            "That often means that too few rows or only one group are left. Ask for another column or for "
            "fewer conditions."
        ),
    )


def no_rows(request: Request, table: Table, rows: int) -> str:
    """Return the answer when no row meets the conditions."""
    hints: list[str] = []
    for one in request.filters:
        column = table[one.column]
        if column.values:
            hints.append(
                f"`{column.name}` holds "
                f"{', '.join(column.values[:10])}{' and more' if len(column.values) > 10 else ''}."
            )
        elif column.min is not None:
            hints.append(f"`{column.name}` ranges from {column.min} to {column.max}.")
    conditions = listed([one.text for one in request.filters])
    return paragraphs(
        f"None of the {rows:,} rows meets the condition {conditions}, so there is nothing to work out.", " ".join(hints)
    )


def _last_line(error: str) -> str:
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return cut_head(lines[-1].strip(), 300) if lines else "an unknown error"
