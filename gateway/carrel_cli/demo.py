"""`carrel demo`: the embedded product in this terminal, and one finished example on the data set that comes with it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from carrel_cli.errors import CommandError
from carrel_cli.run import ask
from carrel_cli.servers import Server, gateway
from carrel_client import Client


def show(*, port: int, data_dir: Path | None, leave: bool, console: Console) -> bool:
    """Serve, run the example, and serve on until Ctrl-C unless `leave`; return whether the example succeeded."""
    example = bundled_example()
    with gateway(None, data_dir, port=port) as server:
        _say_where(server, console)
        console.print(Text(f"\n  Example: {example['question']}", style="bold"))
        console.print(Text(f"  Data: {example['file']}", style="dim"), soft_wrap=True)
        with Client(server.url, server.key) as client:
            succeeded = ask(
                client,
                example["question"],
                [Path(example["file"])],
                model=example["model"],
                out=Path("carrel-out"),
                console=console,
            )
        if server.process is not None and not leave:
            _say_where(server, console)
            console.print(Text("  Ctrl-C stops it.\n", style="dim"))
            _serve_on(server.process)
    return succeeded


def bundled_example() -> dict[str, Any]:
    """Return question, file and model of the example, found without importing the gateway."""
    spec = importlib.util.find_spec("carrel_gateway")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        folder = Path(place) / "data"
        if (folder / "example.json").is_file():
            example: dict[str, Any] = json.loads((folder / "example.json").read_text("utf-8"))
            return {**example, "file": str(folder / example["file"])}
    raise CommandError("the bundled example is not there; install the distribution `carrel` whole")


def _say_where(server: Server, console: Console) -> None:
    link = f"{server.url}/#key={server.key}"
    console.print(Text(f"\n  Carrel is running: {link}", style="green"), soft_wrap=True)
    console.print(Text(f"  API documentation: {server.url}/docs"), soft_wrap=True)
    console.print(Text("  Code runs as you, on this machine, without isolation.", style="dim"))


def _serve_on(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        return
