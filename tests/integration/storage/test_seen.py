"""Writes of what somebody has seen, over both databases: of those who have seen the same, one writes.

Plan: for each thing that has a tag, several writers with the tag of now come at the same moment: one has its way, the
others hear that it is not as it was, and nothing of their changes is there; of deletions one does it; a writer without
a tag is not held up; those who change different parts of a configuration, without tags, all have their way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.people import new_user
from tests.support.state import chunks_of

from carrel_gateway.accounts.profile import Profile, ProfileService
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.config.service import ConfigService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, PreconditionFailed
from carrel_gateway.identity.rights import Role
from carrel_gateway.people.schemas import UserOut
from carrel_gateway.people.service import Member, Team, TeamService, UserService
from carrel_gateway.sessions.schemas import SessionOut
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.stored_agents.schemas import AgentOut
from carrel_gateway.stored_agents.service import AgentService
from carrel_gateway.web.conditional import SeenBy, tag_of

WRITERS = 4


@dataclass
class Thing:
    """Something with a tag, and a word in it that writers change."""

    tag: Callable[[], Awaitable[str]]
    word: Callable[[], Awaitable[str]]
    write: Callable[[SeenBy, str], Awaitable[object]]
    delete: Callable[[SeenBy], Awaitable[object]] | None = None


async def a_session(context: ProcessContext, owner: Principal) -> Thing:
    sessions = SessionService(context, owner)
    own = (await sessions.create(title="0")).id
    return Thing(
        lambda: _tag(sessions.get(own), SessionOut.model_validate),
        lambda: _word(sessions.get(own), "title"),
        lambda seen, word: sessions.update(own, title=word, expected=seen.on(SessionOut.model_validate)),
        lambda seen: sessions.delete(own, seen.on(SessionOut.model_validate)),
    )


async def a_configuration(context: ProcessContext, owner: Principal) -> Thing:
    own = (await SessionService(context, owner).create(config={"system_prompt": "0"})).id
    configs = ConfigService(context, owner, ModelRegistry(context.settings))
    return Thing(
        lambda: _tag(configs.get(own), _itself),
        lambda: _word(configs.get(own), "system_prompt"),
        lambda seen, word: configs.update(own, {"system_prompt": word}, seen.on(_itself)),
    )


async def an_agent(context: ProcessContext, owner: Principal) -> Thing:
    agents = AgentService(context, owner)
    own = (await agents.store(name="0", description="", model="m", config={})).agent.id
    shown = AgentOut.model_validate

    async def word() -> str:
        return (await agents.get(own)).agent.name

    return Thing(
        lambda: _tag(agents.get(own), shown),
        word,
        lambda seen, word: agents.change(own, {"name": word}, expected=seen.on(shown)),
        lambda seen: agents.delete(own, seen.on(shown)),
    )


async def a_team(context: ProcessContext, owner: Principal) -> Thing:
    teams = TeamService(context, owner)
    own = (await teams.found("0")).id

    def shown(found: tuple[Team, list[Member]]) -> str:
        return f'"{found[0].name} {len(found[1])}"'

    async def word() -> str:
        return (await teams.get(own))[0].name

    return Thing(
        lambda: _tag(teams.get(own), shown),
        word,
        lambda seen, word: teams.rename(own, word, seen.on(shown)),
        lambda seen: teams.delete(own, seen.on(shown)),
    )


async def a_profile(context: ProcessContext, owner: Principal) -> Thing:
    profiles = ProfileService(context, owner)

    def shown(profile: Profile) -> str:
        return f'"{profile.member.name} {[one.name for one in profile.tenants]}"'

    async def word() -> str:
        return (await profiles.get()).member.name

    return Thing(lambda: _tag(profiles.get(), shown), word, lambda seen, word: profiles.rename(word, seen.on(shown)))


async def preferences(context: ProcessContext, owner: Principal) -> Thing:
    profiles = ProfileService(context, owner)

    def shown(kept: dict[str, Any]) -> str:
        return f'"{kept.get("word")}"'

    async def word() -> str:
        return (await profiles.preferences())["word"]

    return Thing(
        lambda: _tag(profiles.preferences(), shown),
        word,
        lambda seen, word: profiles.set_preferences({"word": word}, seen.on(shown)),
    )


async def a_user(context: ProcessContext, owner: Principal) -> Thing:
    users = UserService(context, await new_user(context.database, owner.tenant_id, Role.ADMIN))
    own, shown = (await users.add_service("0", Role.USER)).id, UserOut.model_validate
    return Thing(
        lambda: _tag(users.get(own), shown),
        lambda: _word(users.get(own), "name"),
        lambda seen, word: users.change(own, name=word, expected=seen.on(shown)),
    )


KINDS = [a_session, a_configuration, an_agent, a_team, a_user, a_profile, preferences]


@pytest.fixture
async def owner(context: ProcessContext, principal: Principal) -> Principal:
    return await new_user(context.database, principal.tenant_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_of_writers_who_have_seen_the_same_one_has_its_way(
    context: ProcessContext, owner: Principal, kind: Callable[[ProcessContext, Principal], Awaitable[Thing]]
) -> None:
    thing = await kind(context, owner)
    for turn in range(3):
        seen = SeenBy(await thing.tag())
        words = [f"{turn} {writer}" for writer in range(WRITERS)]
        outcomes = await asyncio.gather(*(thing.write(seen, word) for word in words), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert [type(error) for error in refused] == [PreconditionFailed] * (WRITERS - 1), refused
        (won,) = (word for word, outcome in zip(words, outcomes, strict=True) if outcome not in refused)
        assert await thing.word() == won
    await thing.write(SeenBy(None), "whatever is there")
    assert await thing.word() == "whatever is there"
    if thing.delete is None:
        return
    seen = SeenBy(await thing.tag())
    outcomes = await asyncio.gather(*(thing.delete(seen) for _ in range(2)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes if isinstance(outcome, BaseException)) == ["NotFound"]
    with pytest.raises(NotFound):
        await thing.tag()


async def test_a_file_that_was_stored_anew_is_not_deleted(context: ProcessContext, owner: Principal) -> None:
    own, files = (await SessionService(context, owner).create()).id, ArtifactService(context, owner)

    async def stored(content: bytes) -> SeenBy:
        file = await files.store(own, name="a.csv", category="data", content_type=None, chunks=chunks_of(content))
        return SeenBy(f'"{file.sha256}"')

    first, second = await stored(b"1"), await stored(b"2")
    with pytest.raises(PreconditionFailed):
        await files.delete(own, "a.csv", "data", first.on(lambda file: f'"{file.sha256}"'))
    await files.delete(own, "a.csv", "data", second.on(lambda file: f'"{file.sha256}"'))


async def test_those_who_change_different_parts_all_have_their_way(context: ProcessContext, owner: Principal) -> None:
    own = (await SessionService(context, owner).create()).id
    configs = ConfigService(context, owner, ModelRegistry(context.settings))
    changes: list[dict[str, Any]] = [{"system_prompt": "x"}, {"max_steps": 3}, {"max_retries": 1}]
    await asyncio.gather(*(configs.update(own, dict(change)) for change in changes))
    config = await configs.get(own)
    assert (config.system_prompt, config.max_steps, config.max_retries) == ("x", 3, 1)


async def _tag(thing: Awaitable[Any], shown: Callable[[Any], Any]) -> str:
    found = shown(await thing)
    return found if isinstance(found, str) else tag_of(found)


async def _word(thing: Awaitable[Any], name: str) -> str:
    return getattr(await thing, name)


def _itself(config: Any) -> Any:
    return config
