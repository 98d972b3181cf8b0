"""Two hundred requests made by Schemathesis for each operation of the API; see `tests.support.fuzz`."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.support.fuzz import OPERATIONS, fuzz, target

EXAMPLES = 200
_answered: dict[str, Counter[int]] = {}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with target(tmp_path_factory.mktemp("fuzz") / "data") as made:
        yield made


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_breaks_it(fuzzed, name):
    _answered[name] = fuzz(fuzzed, name, examples=EXAMPLES)


def test_the_figures(record):
    """Written down once every operation has passed."""
    assert set(_answered) == set(OPERATIONS)
    statuses = sum(_answered.values(), Counter[int]())
    record(
        "API: requests that nobody thought of",
        "Each operation of the OpenAPI document under requests that Schemathesis makes, fitting and not.",
        [
            ("Operations", str(len(_answered))),
            ("Requests", str(statuses.total())),
            ("Answers", ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))),
            ("Answers that the document does not declare, and 5xx", "none"),
        ],
    )
