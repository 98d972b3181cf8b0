"""`carrel demo`: the embedded product in this terminal, and one finished example on the data set that comes with it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Final

from rich.console import Console

from carrel_cli.errors import CommandError
from carrel_cli.run import ask
from carrel_cli.servers import Server, gateway
from carrel_cli.show import line
from carrel_client import Client

TABLE: Final = "wine.csv"
QUESTION: Final = "How does the average color intensity differ between the cultivars?"
MODEL: Final = "demo/analyst"
"""The example needs no key, whatever model the settings name."""


def show(*, port: int, data_dir: Path | None, leave: bool, console: Console) -> bool:
    """Serve, run the example, and serve on until Ctrl-C unless `leave`; return whether the example succeeded."""
    table = bundled_table()
    with gateway(None, data_dir, port=port) as server:
        _say_where(server, console)
        console.print(line(f"\n  Example: {QUESTION}", "bold"))
        console.print(line(f"  Data: {table}", "dim"), soft_wrap=True)
        with Client(server.url, server.key) as client:
            succeeded = ask(client, QUESTION, [table], model=MODEL, out=Path("carrel-out"), console=console)
        if server.process is not None and not leave:
            _say_where(server, console)
            console.print(line("  Ctrl-C stops it.\n", "dim"))
            _serve_on(server.process)
    return succeeded


def bundled_table() -> Path:
    """Return the data set that comes with the gateway, found without importing it."""
    spec = importlib.util.find_spec("carrel_gateway")
    for place in list(spec.submodule_search_locations or []) if spec else []:
        table = Path(place) / "data" / TABLE
        if table.is_file():
            return table
    raise CommandError("the bundled data set is not there; install the distribution `carrel` whole")


def _say_where(server: Server, console: Console) -> None:
    link = f"{server.url}/#key={server.key}"
    console.print(line(f"\n  Carrel is running: {link}", "green"), soft_wrap=True)
    console.print(line(f"  API documentation: {server.url}/docs"), soft_wrap=True)
    console.print(line("  Code runs as you, on this machine, without isolation.", "dim"))


def _serve_on(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        return
