"""Writes of what somebody has seen, over both databases: of those who have seen the same, one writes.

Plan: for each thing that has a tag, several writers with the tag of now come at the same moment: one has its way, the
others hear that it is not as it was, and nothing of their changes is there; of deletions one does it; a writer without
a tag is not held up; those who change different parts of a configuration, without tags, all have their way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from tests.support.people import new_user
from tests.support.state import chunks_of

from carrel_gateway.accounts.profile import Profile, ProfileService
from carrel_gateway.agents.models.registry import ModelRegistry
from carrel_gateway.artifacts.service import ArtifactService
from carrel_gateway.config.service import ConfigService
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.credentials.schemas import KeyOut
from carrel_gateway.credentials.service import CredentialService
from carrel_gateway.errors import NotFound, PreconditionFailed
from carrel_gateway.identity.rights import Role
from carrel_gateway.mcp_servers.schemas import ServerOut
from carrel_gateway.mcp_servers.service import Change, McpServerService, NewServer
from carrel_gateway.people.schemas import UserOut
from carrel_gateway.people.service import Member, Team, TeamService, UserService
from carrel_gateway.provider_keys.schemas import ProviderKeyOut
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.sessions.schemas import SessionOut
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.sharing.schemas import LinkOut, TeamShareOut
from carrel_gateway.sharing.sessions import SessionSharing
from carrel_gateway.stored_agents.schemas import AgentOut
from carrel_gateway.stored_agents.service import AgentService
from carrel_gateway.web.conditional import SeenBy, if_any, tag_of

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


async def a_provider_key(context: ProcessContext, owner: Principal) -> Thing:
    keys, shown = ProviderKeyService(context, owner), if_any(ProviderKeyOut.model_validate)
    await keys.put("openai", "0", tenant=False)

    async def told() -> Any:
        return next((key for key in await keys.list()), None)

    async def tag() -> str:
        found = shown(await told())
        if isinstance(found, str):
            raise NotFound("there is none", code="provider_key_not_found")
        return tag_of(found)

    async def word() -> str:
        return await keys.key_for("openai/gpt-4o") or ""

    return Thing(
        tag,
        word,
        lambda seen, word: keys.put("openai", word, tenant=False, expected=seen.on(shown)),
        lambda seen: keys.remove("openai", tenant=False, expected=seen.on(shown)),
    )


async def an_mcp_server(context: ProcessContext, owner: Principal) -> Thing:
    own, servers = (await SessionService(context, owner).create()).id, McpServerService(context, owner)
    await servers.add(own, NewServer("x", ["0"], {}, "ask", enabled=True))
    shown = ServerOut.model_validate

    async def word() -> str:
        return (await servers.get(own, "x")).target[0]

    return Thing(
        lambda: _tag(servers.get(own, "x"), shown),
        word,
        lambda seen, word: servers.change(own, "x", Change(target=[word]), seen.on(shown)),
        lambda seen: servers.remove(own, "x", seen.on(shown)),
    )


KINDS = [a_session, a_configuration, an_mcp_server, an_agent, a_team, a_user, a_profile, preferences, a_provider_key]


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


async def test_of_those_who_share_otherwise_one_has_its_way(context: ProcessContext, owner: Principal) -> None:
    team, shown = (await TeamService(context, owner).found("0")).id, if_any(TeamShareOut.model_validate)
    sharing, agents = SessionSharing(context, owner), AgentService(context, owner)
    session = (await SessionService(context, owner).create()).id
    agent = (await agents.store(name="0", description="", model="m", config={})).agent.id
    for thing, service in ((session, sharing), (agent, agents)):
        await service.share(thing, team, "read")
        for access in ("write", "read"):
            seen = SeenBy(await _tag(service.team(thing, team), shown))
            writers = [service.share(thing, team, access, seen.on(shown)) for _ in range(WRITERS)]
            _one_of(await asyncio.gather(*writers, return_exceptions=True), PreconditionFailed)
            assert (await service.team(thing, team)).access == access
        seen = SeenBy(await _tag(service.team(thing, team), shown))
        leavers = [service.unshare(thing, team, seen.on(shown)) for _ in range(2)]
        _one_of(await asyncio.gather(*leavers, return_exceptions=True), NotFound)


async def test_of_those_who_revoke_one_has_its_way(context: ProcessContext, owner: Principal) -> None:
    sharing, keys = SessionSharing(context, owner), CredentialService(context, owner)
    session = (await SessionService(context, owner).create()).id
    link, key = (await sharing.make_link(session, timedelta(hours=1)))[0], (await keys.make_key("0")).row
    seen = SeenBy(tag_of(LinkOut.model_validate(link))).on(LinkOut.model_validate)
    revoked = [sharing.revoke_link(session, link.id, seen) for _ in range(2)]
    _one_of(await asyncio.gather(*revoked, return_exceptions=True), PreconditionFailed)
    seen = SeenBy(tag_of(KeyOut.model_validate(key))).on(KeyOut.model_validate)
    revoked = [keys.revoke_key(key.id, seen) for _ in range(2)]
    _one_of(await asyncio.gather(*revoked, return_exceptions=True), PreconditionFailed)


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


def _one_of(outcomes: list[Any], others: type[Exception]) -> None:
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(error) for error in refused] == [others] * (len(outcomes) - 1), refused


async def _tag(thing: Awaitable[Any], shown: Callable[[Any], Any]) -> str:
    found = shown(await thing)
    return found if isinstance(found, str) else tag_of(found)


async def _word(thing: Awaitable[Any], name: str) -> str:
    return getattr(await thing, name)


def _itself(config: Any) -> Any:
    return config
