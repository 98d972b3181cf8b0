"""What the API answers, as frozen dataclasses; members that this version does not know are ignored."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with its own kernel, files and history."""

    id: str
    title: str
    status: str
    model: str
    config: dict[str, Any]
    last_seq: int
    created_at: datetime
    updated_at: datetime
    suspended_at: datetime | None = None
    """When its kernel was given back; it gets one with the state of then when code is run."""
    forked_from: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """An uploaded file, or a file that a cell made."""

    id: str
    name: str
    size: int
    """Bytes."""
    content_type: str
    version: int = 1
    sha256: str = ""
    category: str = "artifacts"


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A run that is over."""

    run_id: str
    status: str
    answer: str | None
    code: str | None
    message: str | None
    artifacts: list[Artifact]
    last_seq: int


@dataclass(frozen=True, slots=True)
class Execution:
    """Code that ran; outputs in the notebook format (nbformat 4)."""

    execution_id: str
    status: str
    execution_count: int | None
    outputs: list[dict[str, Any]]
    artifacts: list[dict[str, Any]]
    wall_seconds: float
    message: str | None = None
    lost_state: bool = False

    @property
    def text(self) -> str:
        """What was printed, and the text of the result."""
        parts: list[str] = []
        for output in self.outputs:
            if output["output_type"] == "stream" and output["name"] == "stdout":
                parts.append(output["text"])
            elif output["output_type"] in {"execute_result", "display_data"}:
                parts.append(str(output["data"].get("text/plain", "")))
        return "".join(parts)

    @property
    def result(self) -> str | None:
        """Text of the last expression's value; None when there was none."""
        texts = [
            output["data"].get("text/plain") for output in self.outputs if output["output_type"] == "execute_result"
        ]
        return texts[-1] if texts else None

    @property
    def error(self) -> str | None:
        """Why it did not end well: the exception's name and value, or what ended it; None when it did."""
        if self.status == "ok":
            return None
        raised = [output for output in self.outputs if output["output_type"] == "error"]
        return f"{raised[-1]['ename']}: {raised[-1]['evalue']}" if raised else self.message or self.status


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a session: committed ones have a number, live ones are provisional and have none."""

    type: str
    payload: dict[str, Any]
    seq: int | None = None
    id: str | None = None
    actor: str | None = None
    created_at: datetime | None = None
    live: bool = field(default=False)


@dataclass(frozen=True, slots=True)
class Login:
    """What logging in gave. Both tokens are secrets; the refresh token is good once."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime
    """Of the access token."""
    tenant_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without the key itself."""

    id: str
    name: str
    hint: str
    """How the key ends."""
    scopes: list[str] | None
    """Rights that it is cut to; none is all that its owner has."""
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None
    user_id: str = ""
    """Whose it is."""
    maker_id: str | None = None
    """Who made it."""


def build(kind: type[T], document: dict[str, Any]) -> T:
    """Return a dataclass from a JSON document."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in document.items() if name in known}
    for name in ("created_at", "updated_at", "suspended_at", "expires_at", "used_at"):
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    if kind is ChatResult:
        values["artifacts"] = [build(Artifact, item) for item in values["artifacts"]]
    return kind(**values)
