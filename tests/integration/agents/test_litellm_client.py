"""Language models over real HTTP on loopback: litellm in its worker process against an OpenAI-compatible server.

* a reply streams, with usage; the chat holds rules, earlier turns, files and what came of the code
* each failure (refused key, rate, 500, cut stream, nobody there) is a `ModelFailed` that says what to do and holds no
  key; passing failures are tried again
* the worker: one for all models, no secret of the gateway in its environment, ended by `aclose`; killed in the middle
  of a call, that call fails and the next one works; a caller that goes away ends the request at the provider
* the registry: names are the administrator's, and a missing key says which variable to set
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.fake_openai import Failure, FakeOpenAI, Reply, Silence, fake_openai

from carrel_gateway.agents.models.litellm_client import LitellmClient, LitellmWorker, worker_environment
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.agents.protocols import AgentView, Exchange, FileView, StepRecord, Turn, Usage
from carrel_gateway.errors import InvalidInput, ModelFailed
from carrel_gateway.settings import Settings

KEY = "sk-test-0123456789abcdef"
VIEW = AgentView(
    question="How many?",
    files=(FileView("data/a.csv", 12),),
    turns=(Turn("Before?", "Yes."),),
    exchanges=(
        Exchange(
            "<code>1/0</code>", StepRecord("1/0", "error", "x" * 20_000, "", "ZeroDivisionError", ("a.png",)), "Mind."
        ),
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[LitellmWorker]:
    one = LitellmWorker({**os.environ, "CARREL_API_KEY": "secret", "LLM_API_KEY": KEY})
    yield one
    await one.aclose()


# Whoever asks the worker first waits until it has imported litellm, which takes a slow machine minutes.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


def client(worker: LitellmWorker, fake: FakeOpenAI, key: str | None = KEY) -> LitellmClient:
    return LitellmClient("openai/fake-model", worker=worker, api_key=key, api_base=fake.url, max_tokens=500)


async def said(model: LitellmClient, view: AgentView = VIEW) -> tuple[str, Usage | None, int]:
    text, usage, parts = "", None, 0
    async for chunk in model.stream(view):
        text, usage, parts = text + chunk.text, chunk.usage or usage, parts + 1
    return text, usage, parts


async def test_reply_streams_with_usage(worker: LitellmWorker) -> None:
    text = "<answer>\nDrei und fünf: " + ", ".join(str(n) for n in range(300)) + "\n</answer>"
    async with fake_openai([Reply(text)]) as fake:
        heard, usage, parts = await said(client(worker, fake))
    assert heard == text
    assert usage == Usage(input_tokens=7, output_tokens=len(text), cost=None, finish_reason="stop")
    assert parts >= 2
    (request,) = fake.requests
    assert request["stream"] is True
    assert request["model"] == "fake-model"
    assert request["max_tokens"] == 500
    assert fake.keys == [f"Bearer {KEY}"]


async def test_a_reply_may_come_as_a_whole(worker: LitellmWorker) -> None:
    """Of a registry as `ENABLE_STREAMING=false` has it."""
    text = "<answer>" + "long " * 20_000 + "</answer>"
    async with fake_openai([Reply(text), Failure(401)]) as fake:
        model = LitellmClient(
            "openai/fake-model", worker=worker, api_key=KEY, api_base=fake.url, max_tokens=500, in_parts=False
        )
        heard, usage, parts = await said(model)
        with pytest.raises(ModelFailed, match="refused the key"):
            await said(model)
    assert (heard, parts) == (text, 2)
    assert usage == Usage(input_tokens=7, output_tokens=len(text), cost=None, finish_reason="stop")
    assert not fake.requests[0].get("stream")


async def test_chat_holds_what_the_model_must_know(worker: LitellmWorker) -> None:
    async with fake_openai([Reply("<answer>1</answer>")]) as fake:
        await said(client(worker, fake))
    chat = fake.requests[0]["messages"]
    assert [message["role"] for message in chat] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "<plan>" in chat[0]["content"]
    assert chat[3]["content"].startswith("How many?")
    assert "data/a.csv (12 bytes)" in chat[3]["content"]
    came = chat[5]["content"]
    assert "[8000 characters left off here]" in came
    assert "<error>\nZeroDivisionError\n</error>" in came
    assert "Files made: a.png" in came
    assert came.endswith("Mind.")


async def test_reply_cut_at_the_limit_says_so(worker: LitellmWorker) -> None:
    async with fake_openai([Reply("<answer>so", finish="length")]) as fake:
        _, usage, _ = await said(client(worker, fake))
    assert usage is not None
    assert usage.finish_reason == "length"


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (
            Failure(401, f"Incorrect API key provided: {KEY}."),
            "refused the key of model openai/fake-model: check LLM_API_KEY",
        ),
        (Failure(404, "The model does not exist", "model_not_found"), "does not know model openai/fake-model"),
        (
            Failure(400, "This model's maximum context length is 10 tokens.", "context_length_exceeded"),
            "too long for model",
        ),
    ],
)
async def test_final_failures(worker: LitellmWorker, behaviour: Failure, expected: str) -> None:
    async with fake_openai([behaviour]) as fake:
        with pytest.raises(ModelFailed) as caught:
            await said(client(worker, fake))
    assert expected in caught.value.message
    assert KEY not in caught.value.message
    assert len(fake.requests) == 1


@pytest.mark.parametrize(("status", "expected"), [(429, "limits how often"), (500, "failed. Ask again")])
async def test_lasting_failures_are_reported(worker: LitellmWorker, status: int, expected: str) -> None:
    async with fake_openai([Failure(status)] * 3) as fake:
        with pytest.raises(ModelFailed, match=expected):
            await said(client(worker, fake))
        assert len(fake.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_passing_failures_are_tried_again(worker: LitellmWorker, status: int) -> None:
    async with fake_openai([Failure(status), Reply("<answer>1</answer>")]) as fake:
        assert (await said(client(worker, fake)))[0] == "<answer>1</answer>"


async def test_cut_stream_is_a_failure(worker: LitellmWorker) -> None:
    async with fake_openai([Reply("<answer>" + "word " * 50, cut_after=60)] * 3) as fake:
        with pytest.raises(ModelFailed, match="broke off"):
            await said(client(worker, fake))


async def test_nobody_there(worker: LitellmWorker) -> None:
    async with fake_openai([]) as fake:
        url = fake.url
    gone = LitellmClient("openai/x", worker=worker, api_key=KEY, api_base=url, max_tokens=10)
    with pytest.raises(ModelFailed, match="cannot be reached"):
        await said(gone)


async def test_server_of_ones_own_needs_no_key(worker: LitellmWorker) -> None:
    async with fake_openai([Reply("<answer>1</answer>")]) as fake:
        await said(client(worker, fake, key=None))
    assert fake.keys == ["Bearer none"]


async def test_caller_goes_away_and_the_provider_is_left(worker: LitellmWorker) -> None:
    async with fake_openai([Silence()]) as fake:
        task = asyncio.create_task(said(client(worker, fake)))
        async with asyncio.timeout(300):
            await fake.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await fake.left.wait()


async def test_calls_at_the_same_time_do_not_mix(worker: LitellmWorker) -> None:
    texts = [f"<answer>{'abcdefgh'[n] * (40 + n)}</answer>" for n in range(8)]
    async with fake_openai([Reply(text) for text in texts]) as fake:
        heard = await asyncio.gather(*(said(client(worker, fake)) for _ in texts))
    assert sorted(text for text, _, _ in heard) == sorted(texts)


async def test_worker_holds_no_secret_of_the_gateway(worker: LitellmWorker) -> None:
    async with fake_openai([Reply("<answer>1</answer>")]) as fake:
        await said(client(worker, fake))
    environment = await asyncio.to_thread(Path(f"/proc/{worker.pid}/environ").read_bytes)
    assert b"LITELLM_LOCAL_MODEL_COST_MAP=True" in environment
    assert b"secret" not in environment
    assert KEY.encode() not in environment


async def test_worker_killed_in_a_call(worker: LitellmWorker) -> None:
    async with fake_openai([Silence(), Reply("<answer>1</answer>")]) as fake:
        task = asyncio.create_task(said(client(worker, fake)))
        async with asyncio.timeout(300):
            await fake.asked.wait()
            first = worker.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            with pytest.raises(ModelFailed, match="ended unexpectedly"):
                await task
            assert (await said(client(worker, fake)))[0] == "<answer>1</answer>"
        assert worker.pid not in (None, first)


async def test_closed_worker_is_gone() -> None:
    one = LitellmWorker()
    async with fake_openai([Failure(401)]) as fake:
        with pytest.raises(ModelFailed):
            await said(client(one, fake))
    pid = one.pid
    assert pid is not None
    await one.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await one.aclose()


# the registry


def settings(**values: object) -> Settings:
    return Settings.model_validate(
        {"llm_model": "demo/analyst", "models": [], "llm_api_key": None, "llm_api_base": None, **values}
    )


async def test_analyst_is_always_there_and_needs_no_key() -> None:
    registry = ModelRegistry(
        settings(llm_model="openai/gpt-4o", models=["anthropic/claude-x"]), {"ANTHROPIC_API_KEY": "k"}
    )
    assert [(one.name, one.provider, one.default, one.key_present) for one in registry.list()] == [
        ("openai/gpt-4o", "openai", True, False),
        ("anthropic/claude-x", "anthropic", False, True),
        ("demo/analyst", "demo", False, True),
    ]
    assert registry.client("demo/analyst").name == "demo/analyst"
    assert registry.client("anthropic/claude-x").name == "anthropic/claude-x"
    await registry.aclose()


async def test_keys_of_the_settings_count() -> None:
    """Of a file of secrets, say, they are in no environment, and are handed to the worker."""
    registry = ModelRegistry(
        settings(models=["openai/a", "anthropic/b", "gemini/c"], openai_api_key="k1", anthropic_api_key="k2"), {}
    )
    assert [one.key_present for one in registry.list()] == [True, True, True, False]
    handed = worker_environment(registry._environment)
    assert (handed["OPENAI_API_KEY"], handed["ANTHROPIC_API_KEY"]) == ("k1", "k2")
    await registry.aclose()


async def test_missing_key_says_which_variable_to_set() -> None:
    with pytest.raises(ModelFailed) as caught:
        ModelRegistry(settings(llm_model="gpt-4o"), {}).client("gpt-4o")
    assert "set LLM_API_KEY (or OPENAI_API_KEY)" in caught.value.message


async def test_unknown_names_are_refused() -> None:
    registry = ModelRegistry(settings(llm_model="foo"), {})
    with pytest.raises(InvalidInput, match="there are: foo, demo/analyst"):
        registry.require("openai/gpt-4o")
    with pytest.raises(ModelFailed, match="openai/foo"):
        registry.require("foo")
