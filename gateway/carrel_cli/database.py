"""`carrel db`: the schema of the database that the settings name; no server is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

import typer

from carrel_cli.errors import CommandError
from carrel_cli.show import clean

db_app = typer.Typer(help="The schema of the database that the settings name.", no_args_is_help=True)


@db_app.callback()
def db() -> None:
    """The schema of the database that the settings name."""


@db_app.command()
def upgrade() -> None:
    """Bring the database to the schema of this version; of several that do it at once, one does the work."""
    from carrel_gateway.settings import Settings  # noqa: PLC0415 - the gateway's parts take a while to import
    from carrel_gateway.storage import migrate  # noqa: PLC0415 - as above

    with _told():
        asyncio.run(migrate.upgrade(Settings().database))
    typer.echo(f"the database has the schema {migrate.HEAD}")


@db_app.command()
def status() -> None:
    """Say which schema the database has, and fail when it is not that of this version."""
    from carrel_gateway.settings import Settings  # noqa: PLC0415 - as above
    from carrel_gateway.storage import migrate  # noqa: PLC0415 - as above

    with _told():
        revision = asyncio.run(migrate.current(Settings().database))
    if revision == migrate.HEAD:
        typer.echo(f"the database has the schema {revision}, which this version needs")
        return
    known = revision is None or revision in migrate.KNOWN
    what = "run: carrel db upgrade" if known else "use the newer Carrel that made it"
    typer.echo(f"the database has {f'the schema {revision}' if revision else 'no schema yet'}; ", nl=False)
    typer.echo(f"this version needs {migrate.HEAD}: {what}")
    raise typer.Exit(1)


@contextmanager
def _told() -> Generator[None]:
    from carrel_gateway.errors import CarrelError  # noqa: PLC0415 - as above

    try:
        yield
    except CarrelError as error:
        for line in error.message.splitlines():
            typer.echo(clean(f"carrel: {line}"), err=True)
        raise typer.Exit(CommandError.exit_code) from error
