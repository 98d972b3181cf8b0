"""The commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from carrel_cli import demo as demonstration
from carrel_cli import people
from carrel_cli.database import db_app
from carrel_cli.errors import CommandError, Usage
from carrel_cli.installation import config_app, doctor
from carrel_cli.run import ask, check_data, check_out
from carrel_cli.servers import gateway
from carrel_cli.show import clean, session_table, state
from carrel_client import CarrelClientError

app = typer.Typer(
    name="carrel",
    help="A desk of its own for every data-analysis conversation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
sessions_app = typer.Typer(help="The conversations of a server.", no_args_is_help=True)
app.add_typer(sessions_app, name="sessions")
audit_app = typer.Typer(help="What was done in the tenant.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")
keys_app = typer.Typer(help="Your API keys at a server.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(config_app, name="config")
app.add_typer(db_app, name="db")
app.command()(doctor)

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the embedded product.", show_default="~/.carrel")
]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="CARREL_SERVER",
        help="Address of a server: under `carrel login`, or with its key in CARREL_API_KEY.",
        show_default=False,
    ),
]


@contextmanager
def _said_plainly() -> Generator[None]:
    """Turn what can go wrong into one line and an exit code."""
    try:
        yield
    except CommandError as error:
        typer.echo(clean(f"carrel: {error}"), err=True)
        raise typer.Exit(error.exit_code) from error
    except CarrelClientError as error:
        typer.echo(clean(f"carrel: {error}"), err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("carrel: stopped", err=True)
        raise typer.Exit(130) from None


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8000")] = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the API and the page until Ctrl-C."""
    from carrel_gateway.__main__ import main as gateway_main  # noqa: PLC0415 - the one command that is the gateway

    given = {"--host": host, "--port": port, "--data-dir": data_dir}
    arguments = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    raise typer.Exit(gateway_main(arguments, log_format="console" if sys.stderr.isatty() else "json"))


@app.command()
def run(
    question: Annotated[str, typer.Argument(help="What to find out.")],
    data: Annotated[list[Path] | None, typer.Option("--data", "-d", help="A data file; may be given again.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model, such as demo/analyst.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files that the run makes.")] = Path(
        "carrel-out"
    ),
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Ask one question about data; print plan, code, output and answer, and save the files that were made."""
    with _said_plainly():
        if not question.strip():
            raise Usage("the question is empty")
        check_data(data or [])
        check_out(out)
        with gateway(server, data_dir, model=model) as found, found.client() as client:
            succeeded = ask(client, question, data or [], model=model, out=out, console=_console())
    raise typer.Exit(0 if succeeded else 1)


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 8000,
    data_dir: DataDir = None,
    exit_: Annotated[
        bool, typer.Option("--exit", envvar="CARREL_DEMO_EXIT", help="Stop after the example instead of serving on.")
    ] = False,
) -> None:
    """Start the embedded product, run a finished example on a bundled data set, and keep serving."""
    with _said_plainly():
        succeeded = demonstration.show(port=port, data_dir=data_dir, leave=exit_, console=_console())
    raise typer.Exit(0 if succeeded else 1)


@sessions_app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List the newest sessions."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        _console().print(session_table(client.sessions(limit=limit)))


SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session, as `carrel sessions list` has it.")]


@sessions_app.command("suspend")
def suspend_session(session: SessionId, server: ServerUrl = None, data_dir: DataDir = None) -> None:
    """Save variables and files of a session, and give its kernel back."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        saved = client.suspend_session(session)["snapshot"]
        _console().print(state(len(saved["variables"]), len(saved["files"]), "saved", saved["not_saved"]))


@sessions_app.command("resume")
def resume_session(session: SessionId, server: ServerUrl = None, data_dir: DataDir = None) -> None:
    """Give a session a kernel with its variables and files as they were."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        resumed = client.resume_session(session)
        _console().print(state(resumed["variables"], resumed["files"], "back", resumed["not_restored"]))


@sessions_app.command("fork")
def fork_session(
    session: SessionId,
    title: Annotated[str | None, typer.Option(help="Title of the new session.")] = None,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Open a session with the history, files and state of another, and print its id."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        forked = client.fork_session(session, title=title)
        typer.echo(clean(forked["session"]["id"]))


@sessions_app.command("export")
def export_session(
    session: SessionId,
    target: Annotated[
        Path, typer.Argument(help="File to write: a notebook where it ends in .ipynb, else all events as lines.")
    ],
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write the history of a session to a file."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        form = "ipynb" if target.suffix == ".ipynb" else "jsonl"
        typer.echo(clean(str(client.export(session, target, form=form))))


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="All of them must be there, each at the beginning of a word.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Find messages and code in all sessions."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        for hit in client.search(" ".join(words), limit=limit):
            text = " ".join(hit["snippet"]["text"].split())
            typer.echo(clean(f"{hit['session_id']}  {hit['role'] or 'code'}: {text}"))


@audit_app.command("verify")
def verify_audit(
    head: Annotated[
        str | None, typer.Option(metavar="SEQ:DIGEST", help="What an earlier look printed and was noted elsewhere.")
    ] = None,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Look along the audit log for entries that were changed, removed, moved or cut off."""
    with _said_plainly():
        seq, separator, digest = (head or "").partition(":")
        if head and not (separator and seq.isascii() and seq.isdigit()):
            raise Usage("--head wants SEQ:DIGEST, as an earlier `carrel audit verify` printed it")
        known: dict[str, Any] = {"seq": int(seq), "digest": digest} if head else {}
        with gateway(server, data_dir) as found, found.client() as client:
            verdict = client.verify_audit(**known)
    typer.echo(
        clean(f"{verdict['entries']} entries are as they were written; head {verdict['entries']}:{verdict['digest']}")
    )
    if not verdict["valid"]:
        typer.echo(clean(f"carrel: {verdict['problem']}"), err=True)
        raise typer.Exit(1)


@app.command()
def login(
    email: Annotated[str, typer.Option(prompt=True, help="Address of mail of the account.")],
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, envvar="CARREL_PASSWORD", help="Asked for.")],
    tenant: Annotated[str | None, typer.Option(help="Id of the tenant, where the account has several.")] = None,
    server: ServerUrl = None,
) -> None:
    """Log in at a server; later commands go on under that login."""
    with _said_plainly():
        url = people.require_named(server)
        profile = people.log_in(url, email, password, tenant)
        typer.echo(clean(people.who(profile, url)))


@app.command()
def logout(server: ServerUrl = None) -> None:
    """End the login at a server."""
    with _said_plainly():
        url = people.require_named(server)
        typer.echo("logged out" if people.log_out(url) else clean(f"there is no login of {url}"))


@app.command()
def whoami(server: ServerUrl = None, data_dir: DataDir = None) -> None:
    """Say who you are at a server, and what you may."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        profile = client.me()
        typer.echo(clean(people.who(profile, found.url)))
        typer.echo(clean(" ".join(profile["rights"])))


@keys_app.command("list")
def list_keys(
    service: Annotated[
        bool, typer.Option("--service", help="Those of all service accounts, for administrators.")
    ] = False,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List your keys; what they are is not known any more."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        _console(200 if service else 120).print(people.key_table(client.keys(service=service), owners=service))


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="A right that it has; may be given again.")] = None,
    days: Annotated[float | None, typer.Option(min=0.001, max=36500, help="How long it lives.")] = None,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it; it is shown once."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        _, key = client.create_key(name, scopes=scope or None, expires_at=people.end_of(days))
        typer.echo(clean(key))


@keys_app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of a key, as `carrel keys list` has it.")],
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key good for nothing."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        client.revoke_key(key)


@keys_app.command("revoke-all")
def revoke_all_keys(
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Those of this user, for administrators.", show_default="yours")
    ] = None,
    server: ServerUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make all keys good for nothing but the one that is used for it."""
    with _said_plainly(), gateway(server, data_dir) as found, found.client() as client:
        typer.echo(f"revoked: {client.revoke_keys(user)}")


@app.command()
def version() -> None:
    """Print the version."""
    from carrel_wire import __version__  # noqa: PLC0415 - not needed by anything else here

    typer.echo(f"carrel {__version__}")


def _console(width: int = 120) -> Console:
    # Without a terminal, such as in a pipe, lines are not cut to a guessed width.
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)
