"""`python -m carrel_api.generate crds` writes the CustomResourceDefinitions; with `--check` it only compares.

The files are generated so that models, schema and documentation cannot drift apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from carrel_api.crds import definitions

HEADER = "# Generated from the models in operator/carrel_api by `python -m carrel_api.generate crds`; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out in full instead of as anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return that no part is an alias of another."""
        del data
        return True


def files() -> dict[str, str]:
    """Return file name → text."""
    return {
        name: HEADER + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        for name, manifest in definitions().items()
    }


def drift(folder: Path) -> list[str]:
    """Return one line for each file in the folder that is missing, differs, or should not be there."""
    wanted = files()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}
    return [
        *(f"{folder / name} is missing" for name in wanted if name not in found),
        *(
            f"{folder / name} differs from the models"
            for name in wanted
            if name in found and found[name] != wanted[name]
        ),
        *(f"{folder / name} is none of the resources" for name in sorted(found.keys() - wanted.keys())),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the files, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m carrel_api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare and change nothing; exit code 1 on drift")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    if options.check:
        found = drift(folder)
        for line in found:
            sys.stderr.write(f"{line}\n")
        if found:
            sys.stderr.write(f"Run `python -m carrel_api.generate {folder}` and commit the result.\n")
        return 1 if found else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
