"""A model whose calls go to several: by what a call is for, and to the next one when a provider fails.

A reply of which a part was seen is never asked for again elsewhere: the part may have been shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import structlog

from carrel_gateway.agents.protocols import AgentView, ModelChunk, ModelClient, ModelPurpose
from carrel_gateway.errors import ModelFailed

log = structlog.get_logger(__name__)


class RoutedClient:
    """A model and those that stand in for it."""

    def __init__(
        self, own: ModelClient, *, by_purpose: Mapping[ModelPurpose, ModelClient], fallbacks: Sequence[ModelClient]
    ) -> None:
        self.name = own.name
        self._own = own
        self._by_purpose = by_purpose
        self._fallbacks = fallbacks

    async def stream(self, view: AgentView) -> AsyncIterator[ModelChunk]:
        """Yield the reply in parts; its usage names the model that gave it.

        Raises
        ------
        ModelFailed
            The last of the models failed, or one after a part of its reply.
        """
        *firsts, last = self._in_order(view.purpose)
        for client in firsts:
            begun = False
            try:
                async with contextlib.aclosing(_named(client, view)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
            except ModelFailed as error:
                if begun:
                    raise
                log.warning("model_stood_in_for", model=client.name, code=error.code, purpose=view.purpose)
            else:
                return
        async with contextlib.aclosing(_named(last, view)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _in_order(self, purpose: ModelPurpose) -> list[ModelClient]:
        first = self._by_purpose.get(purpose, self._own)
        return list({client.name: client for client in (first, self._own, *self._fallbacks)}.values())


async def _named(client: ModelClient, view: AgentView) -> AsyncGenerator[ModelChunk]:
    # Whoever stops reading ends the call: it costs money as long as it goes on.
    async with contextlib.aclosing(cast("AsyncGenerator[ModelChunk]", client.stream(view))) as chunks:
        async for chunk in chunks:
            usage = chunk.usage
            yield chunk if usage is None else ModelChunk(chunk.text, replace(usage, model=client.name))
