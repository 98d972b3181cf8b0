"""Starts the gateway: `python -m carrel_gateway`; `carrel serve` and the embedded start run the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from carrel_wire.quick_start import importing


def main(arguments: list[str] | None = None, **preferred: str) -> int:
    """Serve until a signal comes; return the exit code.

    Parameters
    ----------
    preferred
        Settings in place of defaults; whatever says something of them goes first.
    """
    parser = argparse.ArgumentParser(prog="carrel-gateway", description="The gateway; settings are CARREL_* variables.")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")
    parser.add_argument("--data-dir", type=Path, help="folder of the embedded product")
    parser.add_argument(
        "--child", action="store_true", help="say on standard output when ready, and end when standard input ends"
    )
    parsed = parser.parse_args(arguments)  # before the imports: a wrong option is told at once
    with importing():
        from carrel_gateway.errors import CarrelError  # noqa: PLC0415  all of these within `importing`
        from carrel_gateway.serving import serve  # noqa: PLC0415
        from carrel_gateway.settings import Settings  # noqa: PLC0415
        from carrel_gateway.sources.reading import InvalidSettings  # noqa: PLC0415
    given: dict[str, Any] = {
        name: value for name in ("host", "port", "data_dir") if (value := getattr(parsed, name)) is not None
    }
    try:
        settings = Settings(**given)
        unsaid = {name: value for name, value in preferred.items() if name not in settings.model_fields_set}
        return serve(settings.model_copy(update=unsaid), child=parsed.child)
    except InvalidSettings as error:
        for line in error.message.splitlines():
            print(f"carrel: {line}", file=sys.stderr)  # noqa: T201 - a program's last word
        return 2
    except CarrelError as error:
        print(f"carrel: {error.message}", file=sys.stderr)  # noqa: T201 - as above
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
