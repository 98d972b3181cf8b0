"""Two hundred requests made by Schemathesis for each operation of the API; see `tests.support.fuzz`."""

from __future__ import annotations

import pytest
from tests.support.fuzz import OPERATIONS, fuzz, target

EXAMPLES = 200


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with target(tmp_path_factory.mktemp("fuzz") / "data") as made:
        yield made


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_breaks_it(fuzzed, name):
    fuzz(fuzzed, name, examples=EXAMPLES)
