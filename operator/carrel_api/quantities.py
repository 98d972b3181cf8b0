"""Kubernetes quantities as the custom resources allow them: CPUs (`2`, `0.5`, `250m`) and bytes (`512Mi`, `1.5Gi`).

Narrower than Kubernetes' own grammar on purpose: no exponents, no signs, no zero. Source of the suffixes:
k8s.io/apimachinery/pkg/api/resource.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

CPU_PATTERN: Final = r"^([1-9][0-9]{0,6}m|[1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$"
BYTES_PATTERN: Final = r"^([1-9][0-9]{0,15}|[1-9][0-9]{0,5}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T))$"
MAX_LENGTH: Final = 16
_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def any_quantity(quantity: str) -> float:
    """Return the number, of CPUs or bytes, that a quantity is in the form in which the API server writes it back.

    Raises
    ------
    ValueError
        It has a suffix that none of Carrel's own quantities can come back with.
    """
    number = quantity.rstrip("KMGTikm")
    suffix = quantity[len(number) :]
    if suffix != "m" and suffix not in _UNITS:
        message = f"{quantity!r} has an unknown suffix"
        raise ValueError(message)
    return float(number) / 1000 if suffix == "m" else float(number) * _UNITS[suffix]


def millicpus(quantity: str) -> int:
    """Return thousandths of a CPU.

    Raises
    ------
    ValueError
        The quantity is not of the allowed form.
    """
    if not re.fullmatch(CPU_PATTERN, quantity):
        message = f"{quantity!r} must be a number of CPUs such as 2, 0.5 or 500m"
        raise ValueError(message)
    return int(quantity[:-1]) if quantity.endswith("m") else int(Decimal(quantity) * 1000)


def number_of_bytes(quantity: str) -> int:
    """Return bytes, rounded down.

    Raises
    ------
    ValueError
        The quantity is not of the allowed form.
    """
    if not re.fullmatch(BYTES_PATTERN, quantity):
        message = f"{quantity!r} must be a number of bytes such as 512Mi or 1.5Gi"
        raise ValueError(message)
    number = quantity.rstrip("KMGTik")
    return int(Decimal(number) * _UNITS[quantity[len(number) :]])
