"""What a session may choose for itself; everything else is the administrator's, in the settings."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from carrel_gateway.web.fields import ModelName, RequestBody, Text

MAX_SYSTEM_PROMPT: Final = 20_000
"""Characters; they are sent with every call of the model."""


class SessionConfig(RequestBody):
    """A session's own instructions and limits of its runs; no limit may go beyond that of the settings."""

    system_prompt: Annotated[Text, StringConstraints(max_length=MAX_SYSTEM_PROMPT)] | None = None
    """What its agent is told beside its rules; `demo/analyst` reads none."""

    max_steps: Annotated[int | None, Field(ge=1, le=500, description="Model calls of one run.")] = None
    max_retries: Annotated[
        int | None, Field(ge=0, le=20, description="Times that a failing cell of one step is corrected.")
    ] = None
    timeout_seconds: Annotated[
        float | None, Field(gt=0, le=86_400, description="Wall time of one run, in seconds.")
    ] = None
    execution_timeout_seconds: Annotated[
        float | None, Field(gt=0, le=86_400, description="Longest time of one cell, in seconds.")
    ] = None


class ConfigUpdate(SessionConfig):
    """`PUT …/config`: what is named is changed, `null` goes back to the setting."""

    model: ModelName | None = None


class EffectiveConfig(RequestBody):
    """What the next run of the session goes by."""

    model: str
    system_prompt: str | None
    max_steps: int
    max_retries: int
    timeout_seconds: float
    execution_timeout_seconds: float
