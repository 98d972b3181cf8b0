"""The reply parser.

* whole replies: each tag, several, unclosed, fenced, marks of a plan, none
* streamed replies: however a reply is cut into chunks, the parts join to the same text (Hypothesis), and text that
  cannot be a tag is not held back
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.agents.tags import Part, TagParser, parse_plan, parse_reply

REPLY = """Let me see.
<plan>
1. [x] Load
- [ ] Count <b>all</b>
* [-] Plot
</plan>
<code>
if a < b and "</plan>" != c:
    print("<answer>")
</code>
"""


def test_whole_reply() -> None:
    reply = parse_reply(REPLY)
    assert [(step.title, step.status) for step in reply.plan] == [
        ("Load", "done"),
        ("Count <b>all</b>", "open"),
        ("Plot", "skipped"),
    ]
    assert reply.code == 'if a < b and "</plan>" != c:\n    print("<answer>")'
    assert reply.answer is None
    assert reply.thought == "Let me see."
    assert reply.unclosed is None


def test_code_loses_fence_and_indentation() -> None:
    assert parse_reply("<code>\n```python\n  x = 1\n  y = 2\n```\n</code>").code == "x = 1\ny = 2"
    assert parse_reply('<CODE lang="py">x</Code>').code == "x"


def test_empty_code_is_no_code() -> None:
    assert parse_reply("<code>\n\n</code>").code is None


def test_first_code_counts_and_answers_join() -> None:
    reply = parse_reply("<code>a</code><code>b</code><answer>1</answer><answer>2</answer>")
    assert (reply.code, reply.more_code, reply.answer) == ("a", True, "1\n\n2")


def test_unclosed_tag_is_named() -> None:
    assert parse_reply("<code>x = 1").unclosed == "code"
    assert parse_reply("<answer>so").answer == "so"
    assert parse_reply("<answer>so").unclosed == "answer"


def test_nothing_in_tags_is_thought() -> None:
    reply = parse_reply("<think><b>hm</b></think> 2 < 3 <coda>")
    assert reply.thought == "<b>hm</b> 2 < 3 <coda>"
    assert reply.plan == ()
    assert reply.code is None
    assert reply.answer is None


def test_plan_without_list_items_has_no_steps() -> None:
    assert parse_plan("first this\nthen that") == ()


def test_half_a_tag_is_held_back_and_other_text_is_not() -> None:
    parser = TagParser()
    assert parser.feed("a < b <co") == [Part("thought", "a < b ")]
    assert parser.feed("de>x = 1 </c") == [Part("code", ""), Part("code", "x = 1 ")]
    assert parser.feed("ol") == [Part("code", "</col")]
    assert parser.feed("</code") == []
    assert parser.close() == [Part("code", "</code")]


PIECES = st.sampled_from(
    ["<plan>", "</plan>", "<code>", "</code>", "<answer>", "</answer>", "<", ">", "- a\n", "x = 1\n", "</", "é"]
)


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_chunks_do_not_matter(pieces: list[str], lengths: list[int]) -> None:
    text = "".join(pieces)
    whole, cut = TagParser(), TagParser()
    expected = joined(whole.feed(text) + whole.close())
    parts: list[Part] = []
    at = 0
    for length in itertools.cycle(lengths):
        if at >= len(text):
            break
        parts += cut.feed(text[at : at + length])
        at += length
    assert joined(parts + cut.close()) == expected


def joined(parts: list[Part]) -> list[tuple[str, str]]:
    merged: list[tuple[str, str]] = []
    for part in parts:
        if part.text and merged and merged[-1][0] == part.kind:
            merged[-1] = (part.kind, merged[-1][1] + part.text)
        else:
            merged.append((part.kind, part.text))
    return [entry for entry in merged if entry[1]]
