"""How settings are called, and which other names beginning with CARREL_ there are; pure, without reading anything.

A setting has `CARREL_<NAME>`, then `DSAGENT_<NAME>`, then names of its own such as `LLM_MODEL`. Whatever else begins
with these two is somebody's mistake, unless another program of the project reads it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

PREFIXES: Final = ("CARREL_", "DSAGENT_")
"""Names that nobody but this project has."""
_TESTS: Final = ("CARREL_TEST_", "CARREL_SOAK_")
_SERVICE_LINK: Final = re.compile(r".+_(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_.+)?)")
"""Source: Kubernetes, "Accessing the Service": what pods get for each Service, whatever it is called."""
_LINKED_ADDRESS: Final = re.compile(r"(?:tcp|udp|sctp)://\S+")

COMMAND_LINE: Final = frozenset({"CARREL_SERVER", "CARREL_PASSWORD", "CARREL_DEMO_EXIT"})
OPERATOR: Final = frozenset(
    f"CARREL_{name}"
    for name in (
        "CLOSED_RANGES",
        "FURTHER_KEYS_FILE",
        "GATEWAY_KEY_ID",
        "GATEWAY_PUBLIC_KEY_FILE",
        "GATEWAY_SELECTOR",
        "HOST_TIMEOUT_SECONDS",
        "LEASE_NAME",
        "NAMESPACE",
        "OPERATOR_KEY_ID",
        "OPERATOR_PRIVATE_KEY_FILE",
        "OPERATOR_SELECTOR",
        "POD_IP",
        "POD_NAME",
        "PROBE_ADDRESS",
        "PROBE_PORT",
        "REACH_PORT",
        "RESYNC_SECONDS",
        "SNAPSHOTS",
        "WORKERS",
    )
)
KERNEL_HOST: Final = frozenset(
    f"CARREL_KERNEL_{name}"
    for name in (
        "ARCHIVE_BYTES",
        "AUTHORITIES",
        "CLOSED_LISTEN",
        "FILE_BYTES",
        "FOLDER_AT_BIND",
        "FORK_SERVER",
        "GRACE_SECONDS",
        "HOST_ID",
        "HUNG_SECONDS",
        "KEYS",
        "LISTEN",
        "LOG_LEVEL",
        "MAX_FILE_BYTES",
        "MAX_KERNELS",
        "MAX_OPEN_FILES",
        "MAX_PROCESSES",
        "MAX_QUEUE",
        "MAX_UNACKNOWLEDGED",
        "MESSAGE_BYTES",
        "ORPHAN_TIMEOUT",
        "OUTPUT_BYTES",
        "OVERFLOW_BYTES",
        "PARENT_PID",
        "RUNTIME_DIR",
        "SESSION_OUTPUT_BYTES",
        "SNAPSHOT_BYTES",
        "SNAPSHOT_SECONDS",
        "SPARE_KERNELS",
        "SPOOL_BYTES",
        "WORKSPACE",
    )
)
_OTHERS: Final = (
    COMMAND_LINE
    | OPERATOR
    | KERNEL_HOST
    | {"CARREL_MIGRATION_DATABASE_URL", "CARREL_CHART_DATA", "CARREL_BASE_IMAGE"}  # of the chart, a kernel, the images
)
"""Names that other programs of the project read; one `.env` file may serve them all."""
_PARTS_TO_COME: Final = {
    "DSAGENT_DOCKER_IMAGE": "no docker executor",
    "DSAGENT_DOCKER_MEMORY_LIMIT": "no docker executor",
    "DSAGENT_DOCKER_CPU_LIMIT": "no docker executor",
}
"""Names of the source documents whose part is not there, and what is missing."""
SCALED: Final = {"ARTIFACT_MAX_SIZE_MB": 1024 * 1024}
"""Names whose number is of another unit than the setting's, and by what it is multiplied."""


def names_of(setting: str, further: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the variables that hold a setting; what goes first is first."""
    return (*(f"{prefix}{setting.upper()}" for prefix in PREFIXES), *further)


def is_foreign(name: str, value: Any) -> bool:
    """Return whether a variable is none of the gateway's: another program's, or a Service's of a cluster."""
    if name in _OTHERS or name.startswith(_TESTS) or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and isinstance(value, str) and _LINKED_ADDRESS.fullmatch(value) is not None


def missing_part(name: str) -> str | None:
    """Return what this version would need for a variable to have an effect; none for another variable."""
    return _PARTS_TO_COME.get(name)


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that an unknown one most likely stands for."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    words = {other.removeprefix(prefix): other for other in known if other.startswith(prefix)}
    likely = difflib.get_close_matches(name.removeprefix(prefix), words, n=1, cutoff=0.6)
    return words[likely[0]] if likely else None
