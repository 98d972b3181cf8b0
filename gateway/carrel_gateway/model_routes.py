"""Where calls of a model go, as the settings say it: the form of `model_routes`, and what is wrong with one.

What is done by it is in `agents.models`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from carrel_gateway.sources.names import nearest


class ModelRoute(BaseModel):
    """The route of one model that sessions may choose."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1)

    api_base: str | None = Field(
        default=None, description="Address of its provider or of a proxy, in place of `llm_api_base`."
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="Its key, in place of `llm_api_key`; with an address of its own no other is sent there.",
    )
    max_tokens: int | None = Field(
        default=None, ge=16, description="Tokens of one reply of it, in place of `max_tokens_per_request`."
    )
    start: str | None = Field(default=None, description="Model of the first call of a run, which makes the plan.")
    correct: str | None = Field(default=None, description="Model of the calls after a cell that failed.")
    repair: str | None = Field(default=None, description="Model of the calls after a reply that could not be read.")
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Models, in order, that are asked when a call failed before any of its reply came."
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        names = list(cast("Mapping[Any, Any]", given)) if isinstance(given, Mapping) else []
        for name in names:
            if name not in cls.model_fields:
                likely = nearest(str(name), cls.model_fields)
                raise ValueError(
                    f"{name} is nothing that a route has; {f'did you mean {likely}?' if likely else _has()}"
                )
        return cast("Any", given)

    @property
    def others(self) -> tuple[str, ...]:
        """The models that it names."""
        named = (self.start, self.correct, self.repair, *self.fallbacks)
        return tuple(dict.fromkeys(name for name in named if name is not None))


def _has() -> str:
    return f"it has {', '.join(ModelRoute.model_fields)}"


def faults(routes: Mapping[str, ModelRoute], models: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with routes of these models."""
    for name, route in routes.items():
        for one in dict.fromkeys([name, *route.others]):
            if one not in models:
                yield f"{one} is none of the models: add it to CARREL_MODELS"
        if name in route.fallbacks:
            yield f"{name} cannot be a fallback of its own"
