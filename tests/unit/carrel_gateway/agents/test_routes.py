"""Routes of models: which one is asked for what, and who stands in.

Plan: each purpose of the loop goes to the model that its route names, and the log holds the model that replied; a model
that fails before any of its reply is stood in for, and one that fails after it is not; keys and addresses are the
route's own; a caller's key goes to its provider alone; what is wrong with routes is refused.
"""

from __future__ import annotations

import re

import pytest
from tests.support.scripted_model import ScriptedModel
from tests.unit.carrel_gateway.agents.conftest import RUN

from carrel_gateway.agents.decide import Limits
from carrel_gateway.agents.loop import AgentLoop
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.agents.models.routed import RoutedClient
from carrel_gateway.agents.protocols import AgentView, ModelChunk, RunContext, Usage
from carrel_gateway.errors import ModelFailed
from carrel_gateway.model_routes import ModelRoute
from carrel_gateway.settings import Settings
from carrel_gateway.sources.reading import InvalidSettings
from carrel_wire.log import ModelCalled

REPLIES = [
    "<plan>\n- Load\n</plan>",
    "<code>raise it</code>",
    "<code>plot it</code>",
    "nothing",
    "<answer>3</answer>",
]
REFUSED = ModelFailed("no")


def model(name, replies=REPLIES):
    return ScriptedModel(replies, name=name)


async def test_each_purpose_goes_to_its_model(journal, kernel):
    by_purpose = {"start": model("cheap"), "correct": model("fine"), "repair": model("patient")}
    routed = RoutedClient(model("own"), by_purpose=by_purpose, fallbacks=[])
    loop = AgentLoop(RunContext(RUN, "How many?"), journal=journal, runner=kernel, model=routed, limits=Limits())
    assert (await loop.run()).status == "succeeded"
    called = [(one.purpose, one.model) for one in journal.of_type(ModelCalled)]
    assert called == [
        ("start", "cheap"), ("continue", "own"), ("correct", "fine"), ("continue", "own"), ("repair", "patient"),
    ]  # fmt: skip


async def test_who_fails_before_its_reply_is_stood_in_for():
    first, own, second = model("cheap", [REFUSED]), model("own", [REFUSED]), model("second")
    routed = RoutedClient(own, by_purpose={"start": first}, fallbacks=[model("third", [REFUSED]), second])
    chunks = [chunk async for chunk in routed.stream(AgentView("Q?"))]
    assert "".join(chunk.text for chunk in chunks) == REPLIES[0]
    assert chunks[-1].usage.model == "second"
    assert [len(one.views) for one in (first, own, second)] == [1, 1, 1]
    alone = RoutedClient(own, by_purpose={"start": first}, fallbacks=[])
    with pytest.raises(ModelFailed):
        _ = [chunk async for chunk in alone.stream(AgentView("Q?"))]


async def test_a_reply_of_which_a_part_came_is_not_asked_for_elsewhere():
    class Cut:
        name = "cut"

        async def stream(self, _view):
            yield ModelChunk("<ans")
            raise REFUSED

    other = model("other")
    reply = RoutedClient(Cut(), by_purpose={}, fallbacks=[other]).stream(AgentView("Q?"))
    assert (await anext(reply)).text == "<ans"
    with pytest.raises(ModelFailed):
        await anext(reply)
    assert other.views == []


async def test_whoever_stops_reading_ends_the_call():
    ended = []

    class Long:
        name = "long"

        async def stream(self, _view):
            try:
                while True:
                    yield ModelChunk("x", Usage())
            finally:
                ended.append(True)

    reply = RoutedClient(Long(), by_purpose={}, fallbacks=[model("other")]).stream(AgentView("Q?"))
    await anext(reply)
    await reply.aclose()
    assert ended


def registry(tmp_path, routes, environment=None, **more):
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        llm_model="openai/a",
        models=["openai/b", "anthropic/c", "hosted_vllm/d"],
        model_routes=routes,
        **more,
    )
    return ModelRegistry(settings, environment or {})


def test_keys_and_addresses_are_those_of_the_route(tmp_path):
    routes = {"openai/b": {"api_base": "http://b", "max_tokens": 99}, "anthropic/c": {"api_key": "of-c"}}
    models = registry(tmp_path, routes, llm_api_key="of-all")
    found = {name: models.client(name) for name in ("openai/a", "openai/b", "anthropic/c")}
    assert {name: (one._api_key, one._api_base, one._max_tokens) for name, one in found.items()} == {
        "openai/a": ("of-all", None, 4000),
        "openai/b": (None, "http://b", 99),  # a key goes nowhere but to whom it is for
        "anthropic/c": ("of-c", None, 4000),
    }


def test_a_callers_key_goes_to_its_provider_alone(tmp_path):
    routes = {"openai/a": {"start": "anthropic/c", "correct": "openai/b", "fallbacks": ["anthropic/c", "demo/analyst"]}}
    models = registry(tmp_path, routes, {"OPENAI_API_KEY": "k"})
    theirs = models.client("openai/a", api_key="theirs")
    assert {purpose: one.name for purpose, one in theirs._by_purpose.items()} == {"correct": "openai/b"}
    assert theirs._by_purpose["correct"]._api_key == "theirs"
    assert theirs._fallbacks == []
    ours = models.client("openai/a")  # without a key of Anthropic's its model stands in for none
    assert {purpose: one.name for purpose, one in ours._by_purpose.items()} == {"correct": "openai/b"}
    assert [one.name for one in ours._fallbacks] == ["demo/analyst"]
    with_key = registry(tmp_path, routes, {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}).client("openai/a")
    assert with_key._by_purpose["start"].name == "anthropic/c"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  openai/a: {strat: demo/analyst}", ".openai/a: strat is nothing that a route has; did you mean start?"),
        ("  openai/a: {max_tokens: 3}", ".openai/a.max_tokens: Input should be greater than or equal to 16"),
        ("  openai/a: demo/analyst", ".openai/a: Input should be a valid dictionary"),
        (
            "  openai/a: {start: openai/x}",
            "CARREL_MODEL_ROUTES: openai/x is none of the models: add it to CARREL_MODELS",
        ),
        ("  openai/x: {start: demo/analyst}", "CARREL_MODEL_ROUTES: openai/x is none of the models"),
        ("  openai/a: {fallbacks: [openai/a]}", "CARREL_MODEL_ROUTES: openai/a cannot be a fallback of its own"),
        ("  [openai/a]", ": Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_with_routes_is_refused(text, said, tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text(f"llm_model: openai/a\nmodel_routes:\n{text}\n")
    monkeypatch.setenv("CARREL_CONFIG_FILE", str(file))
    with pytest.raises(InvalidSettings, match=re.escape(said)):
        Settings(_env_file=None)


def test_routes_of_a_variable_are_json(monkeypatch):
    monkeypatch.setenv("CARREL_MODEL_ROUTES", '{"demo/analyst": {"max_tokens": 20}}')
    assert Settings(_env_file=None).model_routes == {"demo/analyst": ModelRoute(max_tokens=20)}
    monkeypatch.setenv("CARREL_MODEL_ROUTES", "demo/analyst")
    with pytest.raises(InvalidSettings, match="CARREL_MODEL_ROUTES: as a variable it must be JSON"):
        Settings(_env_file=None)


def test_the_page_has_every_field_of_a_route():
    from pathlib import Path

    page = (Path(__file__).parents[4] / "docs" / "reference" / "settings.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == {name: field.description for name, field in ModelRoute.model_fields.items()}
