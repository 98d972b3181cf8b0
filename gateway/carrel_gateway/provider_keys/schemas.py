"""Bodies of the routes of keys of model providers. No answer holds a key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from carrel_gateway.web.fields import ReplyBody, RequestBody


def _printable(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("a key is printable ASCII without spaces")
    return key


class ProviderKeyIn(RequestBody):
    """A key, as the provider gave it out."""

    key: Annotated[SecretStr, Field(min_length=8, max_length=512), AfterValidator(_printable)]


class ProviderKeyOut(ReplyBody):
    """What is told of a key."""

    provider: str
    scope: Literal["own", "tenant"]
    hint: str
    """How it ends; empty for a short one and, but for administrators, for the tenant's."""
    updated_at: datetime


class ProviderKeyList(ReplyBody):
    """One's own keys, and the tenant's."""

    items: list[ProviderKeyOut]
