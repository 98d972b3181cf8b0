"""The API server's refusals in words.

Plan: texts as a real server (1.35) wrote them (data/refusals.json), each with the reason and the words that a person
reads; cut and foreign texts, which must neither fail nor lose what the server said.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_operator.refusals import explain

POD = 'POST /api/v1/namespaces/carrel-sessions/pods: pods "desk" is forbidden: '
TEXTS: list[dict[str, str]] = json.loads((Path(__file__).parent / "data" / "refusals.json").read_text())


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: case["words"][:60])
def test_a_refusal_says_what_to_do(case: dict[str, str]) -> None:
    said = explain(case["text"])
    assert (said.reason, said.message) == (case["reason"], case["words"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (POD + 'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)', "PodRefused"),
        (POD + 'error looking up service account a/none: serviceaccount "none" not found', "PodRefused"),
        (POD + "exceeded quota: team", "QuotaExceeded"),
        ("", "PodRefused"),
    ],
)
def test_what_is_not_known_is_passed_on(text: str, reason: str) -> None:
    said = explain(text)
    assert (said.reason, said.message) == (reason, text)


@given(text=st.sampled_from([case["text"] for case in TEXTS]), end=st.integers(0, 400))
def test_a_text_that_is_cut_is_still_told(text: str, end: int) -> None:
    said = explain(text[:end])
    assert said.reason
    assert said.message or not text[:end]
