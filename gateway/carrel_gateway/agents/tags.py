"""The parser of what models say: `<plan>`, `<code>` and `<answer>`, whole or as it streams in.

Text outside of the tags, and in `<think>`, is thought: shown, never acted upon. Within a tag only its own closing tag
counts, so code and answers may hold any other markup. Does not judge whether a reply makes sense: that is `decide`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from carrel_wire.log import PlanStep

PartKind: TypeAlias = Literal["thought", "plan", "code", "answer"]

_KINDS: Final[dict[str, PartKind]] = {"plan": "plan", "code": "code", "answer": "answer", "think": "thought"}
_OPENING: Final = re.compile(r"<(plan|code|answer|think)(?:\s[^<>\n]*)?>", re.IGNORECASE)
_LONGEST_OPENING: Final = 64
"""A `<` further back than this does not begin a tag; bounds what the parser holds back."""
_FENCE: Final = re.compile(r"\A\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)
_PLAN_LINE: Final = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s*(?:\[(?P<mark>[ xX~/-])\]\s*)?(?P<title>\S.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Part:
    """Some text and what it belongs to."""

    kind: PartKind
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, taken apart."""

    plan: tuple[PlanStep, ...] = ()
    code: str | None = None
    answer: str | None = None
    thought: str = ""
    unclosed: PartKind | None = None
    """The tag that the reply ends in."""
    more_code: bool = False
    """There were further `<code>` parts; only the first counts."""


class TagParser:
    """Takes a reply apart while it streams in; a part is reported as soon as it is certain."""

    def __init__(self) -> None:
        self._pending = ""
        self._tag: str | None = None

    @property
    def open_kind(self) -> PartKind | None:
        """The tag that is open now."""
        return _KINDS[self._tag] if self._tag else None

    def feed(self, text: str) -> list[Part]:
        """Return the parts that the text completes; what may be half a tag is held back."""
        self._pending += text
        parts: list[Part] = []
        while self._step(parts):
            pass
        return parts

    def close(self) -> list[Part]:
        """Return what was held back, at the end of the reply."""
        rest, self._pending = self._pending, ""
        return [Part(self.open_kind or "thought", rest)] if rest else []

    def _step(self, parts: list[Part]) -> bool:
        found = self._closing() if self._tag else _OPENING.search(self._pending)
        kind: PartKind = self.open_kind or "thought"
        if found is None:
            held = self._held_back()
            self._emit(parts, kind, self._pending[: len(self._pending) - held])
            self._pending = self._pending[len(self._pending) - held :]
            return False
        self._emit(parts, kind, self._pending[: found.start()])
        self._pending = self._pending[found.end() :]
        self._tag = None if self._tag else found.group(1).lower()
        if self._tag:
            parts.append(Part(_KINDS[self._tag], ""))  # marks the beginning, also of an empty part
        return True

    def _closing(self) -> re.Match[str] | None:
        return re.compile(rf"</{self._tag}\s*>", re.IGNORECASE).search(self._pending)

    def _held_back(self) -> int:
        """Return how many characters at the end may begin a tag."""
        at = self._pending.rfind("<")
        if at < 0 or len(self._pending) - at > _LONGEST_OPENING:
            return 0
        tail = self._pending[at:].lower()
        if self._tag:
            return len(tail) if f"</{self._tag}>".startswith(tail.rstrip()) else 0
        name = re.match(r"<([a-z]*)", tail)
        known = name is not None and any(tag.startswith(name.group(1)) for tag in _KINDS)
        return len(tail) if known and "\n" not in tail else 0

    @staticmethod
    def _emit(parts: list[Part], kind: PartKind, text: str) -> None:
        if text:
            parts.append(Part(kind, text))


def parse_reply(text: str) -> Reply:
    """Return the reply, taken apart."""
    parser = TagParser()
    parts = parser.feed(text)
    unclosed = parser.open_kind
    parts += parser.close()
    sections = _sections(parts)
    codes = [body for kind, body in sections if kind == "code"]
    answers = [body.strip() for kind, body in sections if kind == "answer" and body.strip()]
    plans = [parse_plan(body) for kind, body in sections if kind == "plan"]
    return Reply(
        plan=plans[-1] if plans else (),
        code=(clean_code(codes[0]) or None) if codes else None,
        answer="\n\n".join(answers) or None,
        thought="".join(body for kind, body in sections if kind == "thought").strip(),
        unclosed=unclosed,
        more_code=len(codes) > 1,
    )


def parse_plan(text: str) -> tuple[PlanStep, ...]:
    """Return the steps of a plan: list items, with `[x]` for done and `[-]` for skipped."""
    steps: list[PlanStep] = []
    for line in text.splitlines():
        found = _PLAN_LINE.match(line)
        if found is None:
            continue
        mark = found.group("mark") or " "
        status = "done" if mark in "xX" else "skipped" if mark in "-~/" else "open"
        steps.append(PlanStep(title=found.group("title"), status=status))
    return tuple(steps)


def clean_code(text: str) -> str:
    """Return the code without the Markdown fence and the indentation that models put around it."""
    fenced = _FENCE.match(text)
    return textwrap.dedent(fenced.group(1) if fenced else text).strip("\n").rstrip()


def _sections(parts: list[Part]) -> list[tuple[PartKind, str]]:
    """Join the parts of each tag; an empty part begins a new one."""
    sections: list[tuple[PartKind, str]] = []
    for part in parts:
        if part.text == "" or not sections or sections[-1][0] != part.kind:
            sections.append((part.kind, part.text))
        else:
            sections[-1] = (part.kind, sections[-1][1] + part.text)
    return sections
