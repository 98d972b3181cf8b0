"""Quantities: what is accepted means what Kubernetes means by it; everything else is refused with what to write."""

import pytest

from carrel_api.quantities import millicpus, number_of_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1000), ("2.5", 2500), ("0.5", 500), ("0.05", 50), ("0.001", 1), ("250m", 250), ("1.250", 1250)],
)
def test_cpus_are_counted_in_thousandths(text: str, expected: int):
    assert millicpus(text) == expected


@pytest.mark.parametrize("text", ["0", "0.0", "0m", "-1", "1e3", "1.2345", "", "1 ", "1m1", "½", "1\n"])
def test_other_forms_of_cpus_are_refused(text: str):
    with pytest.raises(ValueError, match="must be a number of CPUs such as"):
        millicpus(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("128Mi", 128 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("2G", 2 * 10**9),
        ("3k", 3000),
        ("1Ti", 2**40),
        ("7T", 7 * 10**12),
        ("5Ki", 5120),
        ("9M", 9 * 10**6),
    ],
)
def test_bytes_follow_the_suffix(text: str, expected: int):
    assert number_of_bytes(text) == expected


@pytest.mark.parametrize("text", ["0", "0Mi", "-1Gi", "1.5", "1e9", "1KiB", "1 Gi", "Gi", "", "1gi", "1m", "12\n"])
def test_other_forms_of_bytes_are_refused(text: str):
    with pytest.raises(ValueError, match="must be a number of bytes such as"):
        number_of_bytes(text)
