"""A model whose replies are written beforehand: text or exceptions. It raises when one more is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from carrel_gateway.agents.protocols import AgentView, ModelChunk, Usage


class ScriptExhaustedError(AssertionError):
    """The model was asked for more than the test foresaw."""


class ScriptedModel:
    """Gives its replies in order, in chunks of changing length; keeps the views that it was shown."""

    def __init__(self, replies: Sequence[str | Exception], *, name: str = "test/scripted") -> None:
        self.name = name
        self.views: list[AgentView] = []
        self._replies = list(replies)

    async def stream(self, view: AgentView) -> AsyncIterator[ModelChunk]:
        place = len(view.exchanges)  # a run that another process took over asks for the reply of its place
        self.views.append(view)
        if place >= len(self._replies):
            raise ScriptExhaustedError(f"the script holds {len(self._replies)} replies; one more was asked for")
        reply = self._replies[place]
        if isinstance(reply, Exception):
            raise reply
        at, length = 0, 1
        while at < len(reply):
            yield ModelChunk(reply[at : at + length])
            at, length = at + length, length % 7 + 1
        yield ModelChunk("", Usage(input_tokens=10, output_tokens=len(reply), finish_reason="stop"))
