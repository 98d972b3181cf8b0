"""What a session has chosen, within what the settings allow; starts nothing and calls no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.config.schemas import EffectiveConfig, SessionConfig
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.sessions.service import Session, SessionService
from carrel_gateway.settings import Settings


def effective(session: Session, settings: Settings) -> EffectiveConfig:
    """Return what the session's next run goes by: its own choice, and never more than the settings."""
    own = SessionConfig.model_validate(session.config)
    return EffectiveConfig(
        model=session.model,
        system_prompt=own.system_prompt,
        max_steps=min(own.max_steps or settings.agent_max_steps, settings.agent_max_steps),
        max_retries=settings.agent_max_retries
        if own.max_retries is None
        else min(own.max_retries, settings.agent_max_retries),
        timeout_seconds=min(own.timeout_seconds or settings.agent_timeout_seconds, settings.agent_timeout_seconds),
        execution_timeout_seconds=min(
            own.execution_timeout_seconds or settings.execution_timeout_seconds, settings.execution_timeout_seconds
        ),
    )


class ConfigService:
    """Reads and changes the configuration of sessions."""

    def __init__(self, context: ProcessContext, principal: Principal, models: ModelRegistry) -> None:
        self._settings = context.settings
        self._sessions = SessionService(context, principal)
        self._models = models
        self._keys = ProviderKeyService(context, principal)

    async def require_model(self, name: str) -> None:
        """Raise when the caller's sessions may not choose a model of this name, or nobody has a key for it."""
        self._models.require(name, has_key=await self._keys.key_for(name) is not None)

    async def get(self, session_id: UUID) -> EffectiveConfig:
        """Return what the session's next run goes by."""
        return effective(await self._sessions.get(session_id), self._settings)

    async def update(
        self,
        session_id: UUID,
        named: dict[str, Any],
        expected: Callable[[EffectiveConfig], None] | None = None,
    ) -> EffectiveConfig:
        """Change what is named; none goes back to the setting.

        Parameters
        ----------
        expected
            Raises when the configuration is not as whoever changes it has seen it.

        Raises
        ------
        InvalidInput
            The model is not one that sessions may choose.
        """
        await self._sessions.get(session_id)
        model = named.pop("model", None)
        if model is not None:
            await self.require_model(model)

        def plan(session: Session) -> dict[str, Any]:
            if expected:
                expected(effective(session, self._settings))
            config = {name: value for name, value in {**session.config, **named}.items() if value is not None}
            return {**({"config": config} if named else {}), **({"model": model} if model is not None else {})}

        return effective(await self._sessions.revise(session_id, plan), self._settings)

    async def reload(self, session_id: UUID) -> EffectiveConfig:
        """Check that the configuration can be used as it stands; each run reads it anew when it begins.

        Raises
        ------
        InvalidInput
            The model is not there any more.
        """
        session = await self._sessions.get(session_id)
        await self.require_model(session.model)
        return effective(session, self._settings)
