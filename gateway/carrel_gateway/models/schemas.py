"""Replies of the model routes."""

from __future__ import annotations

from carrel_gateway.web.fields import ReplyBody


class ModelOut(ReplyBody):
    """A model that sessions may choose."""

    name: str
    provider: str
    default: bool
    key_present: bool
    """Whether the server, the tenant or the caller has the key that the provider wants; true where none is needed."""


class ModelList(ReplyBody):
    """The models, the default first."""

    items: list[ModelOut]


class Validation(ReplyBody):
    """Whether a run with this model could begin; the provider is not asked, since that would cost money."""

    name: str
    valid: bool
    code: str | None = None
    message: str | None = None
