"""Bodies of the routes of stored agents."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from carrel_gateway.config.schemas import SessionConfig
from carrel_gateway.sharing.schemas import TeamShareOut
from carrel_gateway.web.fields import ModelName, ReplyBody, RequestBody, Text, Title

Description = Annotated[Text, StringConstraints(max_length=2000)]


class AgentCreate(RequestBody):
    """A new agent; without a model it has the default one of today."""

    name: Title
    description: Description = ""
    model: ModelName | None = None
    config: SessionConfig = Field(default_factory=SessionConfig)


class AgentUpdate(RequestBody):
    """What is named is changed, what is left out stays; `config` is replaced as a whole."""

    name: Title | None = None
    description: Description | None = None
    model: ModelName | None = None
    config: SessionConfig | None = None
    version: Annotated[int | None, Field(ge=1)] = None
    """The version that was read; when it is another one now, nothing is changed."""


class AgentOut(ReplyBody):
    """A stored agent."""

    id: UUID
    owner_id: UUID
    name: str
    description: str
    model: str
    config: SessionConfig
    version: int
    shares: list[TeamShareOut]
    created_at: datetime
    updated_at: datetime

    @model_validator(mode="before")
    @classmethod
    def _with_shares(cls, value: Any) -> Any:
        fields = {name: getattr(value.agent, name) for name in value.agent.__slots__}
        return {**fields, "shares": value.shares}


class AgentList(ReplyBody):
    """A page, newest first; `next_cursor` is absent on the last one."""

    items: list[AgentOut]
    next_cursor: str | None = None
