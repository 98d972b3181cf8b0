"""Which environment variables a session may not set, as a rule for the schema (CEL) and as a function.

Refused are names that make the loader or the interpreter run other code, those that the kernel host sets itself
(thread counts, home, paths), and Carrel's and Kubernetes' own.
"""

from __future__ import annotations

from typing import Final

REFUSED_NAMES: Final = (
    # what a dynamic loader, a shell or Python runs or looks up before the kernel's own code
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "IFS",
    "NLSPATH",
    "LOCPATH",
    # set by the kernel host from the pod
    "HOME",
    "HOSTNAME",
    "IPYTHONDIR",
    "JPY_PARENT_PID",
    "MPLCONFIGDIR",
    "PATH",
    "SHELL",
    "TMPDIR",
    "USER",
    # thread counts follow the CPU limit
    "BLIS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
REFUSED_PREFIXES: Final = ("CARREL_", "JUPYTER_", "KUBERNETES_", "LD_", "MALLOC_", "OMP_", "PYTHON")


def refused_name(name: str) -> bool:
    """Return whether a session may not set the variable."""
    return name in REFUSED_NAMES or name.startswith(REFUSED_PREFIXES)


def refused_name_cel(variable: str) -> str:
    """Return a CEL expression that is true where the string `variable` is a refused name."""
    names = ", ".join(f"'{name}'" for name in REFUSED_NAMES)
    prefixes = " || ".join(f"{variable}.startsWith('{prefix}')" for prefix in REFUSED_PREFIXES)
    return f"{variable} in [{names}] || {prefixes}"
