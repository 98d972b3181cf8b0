"""Command line of the bare-host cluster.

python -m tests.cluster.bare up                 start (or find) the cluster; prints the path of an admin kubeconfig
python -m tests.cluster.bare load IMAGE.tar …   import docker or OCI archives, as `kind load image-archive` does
python -m tests.cluster.bare status | down
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cluster.bare.api import kubectl, load
from tests.cluster.bare.lifecycle import down, locked, up
from tests.cluster.bare.shell import ClusterError
from tools.go_tools import ToolError


def main() -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status"):
        commands.add_parser(name)
    commands.add_parser("load").add_argument("images", nargs="+", type=Path)
    arguments = parser.parse_args()
    try:
        _perform(arguments)
    except (ClusterError, ToolError) as error:
        sys.stderr.write(f"hostcluster: {error}\n")
        return 1
    return 0


def _perform(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "up":
            with locked():
                sys.stdout.write(f"{up()}\n")
        case "down":
            with locked():
                down()
        case "load":
            for archive in arguments.images:
                load(archive)
        case _:
            sys.stdout.write(kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide"))


if __name__ == "__main__":
    sys.exit(main())
