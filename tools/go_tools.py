"""Go programs that tests and make use, each pinned to one version and built once into a cache.

Built with `go install` from the module proxy that Go itself is set up with, so checksums are checked by Go. Does not
update anything by itself, and knows nothing of what the programs are used for.

    python -m tools.go_tools helm kubeconform      build if need be, print the paths
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUILD_SECONDS: Final = 1800
"""CoreDNS, the largest, takes two minutes on two cores; a cold module cache and a slow line come on top."""


class ToolError(Exception):
    """A tool cannot be had; the message says what to do."""


@dataclass(frozen=True)
class GoTool:
    """One program: its main package and the version of the module."""

    package: str
    version: str
    program: str = ""
    """Name of the built file, where it is not the last element of the package's path."""

    @property
    def built_name(self) -> str:
        """Name that `go install` gives the file."""
        return self.program or self.package.rpartition("/")[2]


TOOLS: Final[dict[str, GoTool]] = {
    "helm": GoTool("helm.sh/helm/v3/cmd/helm", "v3.22.0"),
    "kubeconform": GoTool("github.com/yannh/kubeconform/cmd/kubeconform", "v0.7.0"),
    "versitygw": GoTool("github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    "coredns": GoTool("github.com/coredns/coredns", "v1.15.0"),
    "kwok": GoTool("sigs.k8s.io/kwok/cmd/kwok", "v0.8.0"),
}


def cache_folder() -> Path:
    """Return the folder of everything that this project caches outside the working tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carrel"


def tool_path(name: str) -> Path:
    """Return where the pinned version of a tool is, or will be."""
    tool = TOOLS[name]
    return cache_folder() / "tools" / f"{name}-{tool.version}" / name


def ensure(name: str) -> Path:
    """Return the path of a tool, after building it if it is not in the cache yet.

    Two processes that ask at once build it once. A static binary results, so it also runs in an image of its own.

    Raises
    ------
    ToolError
        Its name is unknown, Go is not installed, or the build failed.
    """
    if name not in TOOLS:
        raise ToolError(f"unknown tool {name!r}: must be one of {', '.join(sorted(TOOLS))}")
    path = tool_path(name)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _build(TOOLS[name], path)
    return path


def _build(tool: GoTool, path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise ToolError(f"{path.name} {tool.version} is built with Go, which is not on PATH: install Go 1.25 or later")
    folder = path.parent / "build"
    sys.stderr.write(f"building {path.name} {tool.version} (once)\n")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder), "GOFLAGS": "-trimpath -buildvcs=false"}
    command = [go, "install", "-ldflags", "-s -w", f"{tool.package}@{tool.version}"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"building {path.name} took longer than {BUILD_SECONDS} s") from error
    if done.returncode:
        raise ToolError(f"building {path.name} failed:\n{done.stderr.strip()}")
    (folder / tool.built_name).rename(path)  # last, so that a file that is there is whole
    shutil.rmtree(folder)


def main(names: list[str]) -> int:
    """Build the named tools, or all, and print their paths."""
    try:
        for name in names or sorted(TOOLS):
            print(ensure(name))
    except ToolError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
