"""Where packages go that a session adds to the image's: into its workspace, which outlives kernels and pods.

The image's own packages are read-only and come first; `%pip install` adds to them and replaces none. Whether there is
an index to install from is the network's business: the SessionClass decides it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = ".packages"


def pip_environment(workspace: Path) -> dict[str, str]:
    """Return the variables that make pip install there, and leave nothing elsewhere."""
    return {
        "PIP_TARGET": str(workspace / FOLDER),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
