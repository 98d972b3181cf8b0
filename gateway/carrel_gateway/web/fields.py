"""Types of fields that several requests share: text that every database can hold, and bounded numbers."""

from __future__ import annotations

from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

MAX_MESSAGE_CHARACTERS: Final = 100_000
MAX_CODE_CHARACTERS: Final = 1_000_000
MAX_UNKNOWN_FIELDS: Final = 20
"""So many are told one by one."""


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("text must not hold the character NUL")
    return text


_NO_NUL: Final = AfterValidator(_no_nul)

Text = Annotated[str, _NO_NUL]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), _NO_NUL]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200), _NO_NUL]
MessageText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_MESSAGE_CHARACTERS, strip_whitespace=True), _NO_NUL
]
Code = Annotated[str, StringConstraints(max_length=MAX_CODE_CHARACTERS), _NO_NUL]


class RequestBody(BaseModel):
    """Base of request bodies: a field that nobody knows is a mistake, and is said to be one."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        """Refuse an object of many fields as one mistake: telling each of thousands would take longer than all else."""
        fields = len(cast("dict[Any, Any]", value)) if isinstance(value, dict) else 0
        if fields > len(cls.model_fields) + MAX_UNKNOWN_FIELDS:
            raise ValueError("there are more fields than any request has")
        return cast("Any", value)


class ReplyBody(BaseModel):
    """Base of replies, read from the services' dataclasses."""

    model_config = ConfigDict(from_attributes=True)
