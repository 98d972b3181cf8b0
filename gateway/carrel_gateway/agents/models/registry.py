"""The models that sessions may choose: their names are the administrator's, from the settings; never from a request.

The default is `settings.llm_model`, further ones are `settings.models`, and `demo/analyst` is always there. All
language models share one worker process, which is started by the first call. Routes of the settings say which model
stands in for another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from carrel_gateway.agents.models.analyst import AnalystModel
from carrel_gateway.agents.models.analyst.model import NAME as ANALYST
from carrel_gateway.agents.models.litellm_client import LitellmClient, LitellmWorker
from carrel_gateway.agents.models.providers import has_key, key_names, provider_of
from carrel_gateway.agents.models.routed import RoutedClient
from carrel_gateway.agents.protocols import ModelClient, ModelPurpose
from carrel_gateway.errors import InvalidInput, ModelFailed
from carrel_gateway.model_routes import ModelRoute
from carrel_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What people may know of a model."""

    name: str
    provider: str
    default: bool
    key_present: bool
    """Whether the server holds the key that the provider wants; true where none is needed."""


class ModelRegistry:
    """The models of one gateway process."""

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environment = {**environment, **_keys(settings)}
        self._routes = settings.model_routes
        self._names = tuple(dict.fromkeys([settings.llm_model, *settings.models, ANALYST]))
        self._worker = LitellmWorker(self._environment)

    def list(self) -> list[ModelInfo]:
        """Return the models, the default first."""
        return [
            ModelInfo(
                name=name,
                provider=provider_of(name),
                default=name == self._settings.llm_model,
                key_present=self._has_key(name),
            )
            for name in self._names
        ]

    def require(self, name: str, *, has_key: bool = False) -> None:
        """Return when a run with the model could begin; asks no provider.

        Parameters
        ----------
        has_key
            Whoever asks has a key of the provider's.

        Raises
        ------
        InvalidInput
            Sessions may not choose a model of this name.
        ModelFailed
            The server has no key for it; the message says which environment variable to set.
        """
        if name not in self._names:
            raise InvalidInput(f"No model is called {name!r} here; there are: {', '.join(self._names)}.", model=name)
        if provider_of(name) == "unknown":
            raise ModelFailed(
                f"The provider of model {name!r} is not known: set LLM_MODEL to a name like openai/{name}, or to "
                f"{ANALYST}, which needs no provider."
            )
        if not has_key and not self._has_key(name):
            raise ModelFailed(
                f"Model {name} has no key: set LLM_API_KEY (or {' or '.join(key_names(name))}) and start the server "
                f"again, store a key of yours (PUT /api/provider-keys/{provider_of(name)}), or choose {ANALYST}, "
                "which needs none."
            )

    def client(self, name: str, *, api_key: str | None = None) -> ModelClient:
        """Return the model of this name, with a key of the caller's or else the server's; raises as `require` does."""
        self.require(name, has_key=api_key is not None)
        own = self._one(name, api_key)
        route = self._routes.get(name)
        if route is None or not route.others:
            return own
        # A caller's key is for its provider alone, and nobody else's money is spent on a run that the caller pays.
        usable = {
            other: self._one(other, api_key)
            for other in route.others
            if (self._has_key(other) if api_key is None else provider_of(other) == provider_of(name))
        }
        purposes: dict[ModelPurpose, str | None] = {
            "start": route.start,
            "correct": route.correct,
            "repair": route.repair,
        }
        return RoutedClient(
            own,
            by_purpose={purpose: usable[other] for purpose, other in purposes.items() if other in usable},
            fallbacks=[usable[other] for other in route.fallbacks if other in usable],
        )

    def _one(self, name: str, api_key: str | None) -> ModelClient:
        if name == ANALYST:
            return AnalystModel()
        route = self._routes.get(name, ModelRoute())
        key = route.api_key or (None if route.api_base else self._settings.llm_api_key)
        return LitellmClient(
            name,
            worker=self._worker,
            api_key=api_key or (key.get_secret_value() if key else None),
            own_key=api_key is not None,
            api_base=route.api_base or self._settings.llm_api_base,
            max_tokens=route.max_tokens or self._settings.max_tokens_per_request,
            in_parts=self._settings.llm_streaming,
        )

    async def aclose(self) -> None:
        """End the worker process."""
        await self._worker.aclose()

    def _has_key(self, name: str) -> bool:
        """A server of one's own (`LLM_API_BASE`) may want no key; when it does, its refusal says so."""
        route = self._routes.get(name, ModelRoute())
        known = (route.api_key, route.api_base, self._settings.llm_api_key, self._settings.llm_api_base)
        return any(one is not None for one in known) or has_key(name, self._environment)


def _keys(settings: Settings) -> dict[str, str]:
    """Return the keys that settings hold under the names by which providers' libraries look for them."""
    keys = {"OPENAI_API_KEY": settings.openai_api_key, "ANTHROPIC_API_KEY": settings.anthropic_api_key}
    return {name: key.get_secret_value() for name, key in keys.items() if key is not None}
