"""Every operation of the API under requests that nobody thought of, in short; `tests/soak` does it for longer.

Plan: for each operation of the OpenAPI document ten requests made by Schemathesis, the same ones every time; none is
answered by a 5xx or by what the document does not declare.
"""

from __future__ import annotations

import pytest
from tests.support.fuzz import OPERATIONS, fuzz, target


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with target(tmp_path_factory.mktemp("fuzz") / "data") as made:
        yield made


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_breaks_it(fuzzed, name):
    fuzz(fuzzed, name, examples=10)
