"""Commands about this installation itself, for whoever runs a gateway here; no server is asked."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Annotated, Any, Final

import structlog
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from carrel_cli.errors import Usage
from carrel_cli.show import clean

config_app = typer.Typer(help="The settings of a gateway that starts here.", no_args_is_help=True)
_MARKS: Final = {"ok": "✓", "missing": "✗", "unknown": "?"}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@config_app.callback()
def config() -> None:
    """The settings of a gateway that starts here."""


@config_app.command("show")
def show_config(
    *,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not a default.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print each setting, its value and where it came from; secrets are hidden."""
    from carrel_gateway.sources.reading import InvalidSettings  # noqa: PLC0415 - imports pydantic, which takes a while
    from carrel_gateway.sources.showing import overview  # noqa: PLC0415 - as above

    try:
        found = overview()
    except InvalidSettings as error:
        typer.echo(clean(f"carrel: {error.message}"), err=True)
        raise typer.Exit(Usage.exit_code) from error
    rows = [one for one in found.settings if not changed or one.source != "default"]
    if as_json:
        settings = [
            {"name": one.name, "variable": one.variable, "value": one.value, "source": one.source} for one in rows
        ]
        typer.echo(json.dumps({"settings": settings, "warnings": found.warnings, "problems": found.problems}, indent=2))
    else:
        table = Table("setting", "value", "from", box=None, pad_edge=False)
        for one in rows:
            table.add_row(*(Text(clean(part)) for part in (one.variable, _text(one.value), one.source)))
        Console(highlight=False, width=200, soft_wrap=True).print(table)
    for line in [*found.warnings, *found.problems]:
        typer.echo(clean(f"carrel: {line}"), err=True)
    raise typer.Exit(Usage.exit_code if found.problems else 0)


def doctor(*, as_json: AsJson = False) -> None:
    """Find what a gateway that starts here lacks, and say how to get it; exit code 1 when something is missing."""
    from carrel_gateway.doctor.service import examine  # noqa: PLC0415 - imports all of the gateway

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )  # checks say it themselves
    findings = asyncio.run(examine())
    missing = any(one.status == "missing" for one in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not missing, "checks": [asdict(one) for one in findings]}, indent=2))
    else:
        for one in findings:
            typer.echo(clean(f"{_MARKS[one.status]}  {one.check}: {one.found}"))
            if one.advice:
                typer.echo(clean(f"   → {one.advice}"))
    raise typer.Exit(1 if missing else 0)


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
