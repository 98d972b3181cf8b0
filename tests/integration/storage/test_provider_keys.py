"""Keys of model providers over both databases.

Plan: a run uses its user's key, else the tenant's, else none of these; what is stored opens nowhere but where it
belongs, and neither rows, answers, logs nor the audit log hold a key; keys of the installation are exchanged; whoever
may not is refused, and another tenant finds none.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.support.people import new_user
from tests.support.servers import Postgres
from tests.support.state import new_principal, open_state

from carrel_gateway.audit.service import AuditService, Filter
from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import NotFound, PermissionDenied
from carrel_gateway.identity.rights import Role, rights_of
from carrel_gateway.identity.secrets import Unsealable
from carrel_gateway.mcp_servers.service import SEALED_SERVERS, McpServerService, NewServer
from carrel_gateway.mcp_servers.tables import mcp_servers
from carrel_gateway.provider_keys.metrics import USES
from carrel_gateway.provider_keys.rotate import rotate
from carrel_gateway.provider_keys.service import ProviderKeyService
from carrel_gateway.provider_keys.tables import provider_keys
from carrel_gateway.sessions.service import SessionService
from carrel_gateway.settings import Settings
from carrel_gateway.storage.database import Transaction
from carrel_gateway.storage.folder import DataFolderInUse
from carrel_gateway.storage.migrate import MigrationFailed

OWN, SHARED = "sk-own-0123456789abcdefWXYZ", "sk-all-0123456789abcdefQRST"
MODEL = "openai/gpt-4o-mini"


async def rows(tx: Transaction) -> list[dict[str, Any]]:
    query = select(provider_keys).where(provider_keys.c.tenant_id == tx.tenant_id)
    return [dict(row) for row in (await tx.connection.execute(query)).mappings()]


async def test_whose_key_a_run_uses(context: ProcessContext, principal: Principal) -> None:
    user = await new_user(context.database, principal.tenant_id)
    own, administrators = ProviderKeyService(context, user), ProviderKeyService(context, principal)
    counted = {scope: USES.labels(scope)._value.get() for scope in ("own", "tenant", "settings")}
    assert await own.key_for(MODEL) is None
    await administrators.put("openai", SHARED, tenant=True)
    assert USES.labels("settings")._value.get() - counted["settings"] == 1
    assert (await own.key_for(MODEL), await administrators.key_for(MODEL)) == (SHARED, SHARED)
    await own.put("openai", "sk-earlier-0123456789", tenant=False)
    await own.put("openai", OWN, tenant=False)
    assert (await own.key_for(MODEL), await own.key_for("gpt-4o"), await administrators.key_for(MODEL)) == (
        OWN,
        OWN,
        SHARED,
    )
    assert USES.labels("tenant")._value.get() - counted["tenant"] == 3
    assert USES.labels("own")._value.get() - counted["own"] == 2
    assert await own.key_for("anthropic/claude-x") is None
    assert await own.key_for("demo/analyst") is None
    assert await own.providers() == {"openai"}
    assert sorted((key.provider, key.scope, key.hint) for key in await own.list()) == [
        ("openai", "own", "WXYZ"),
        ("openai", "tenant", ""),
    ]
    assert [(key.scope, key.hint) for key in await administrators.list()] == [("tenant", "QRST")]
    await own.remove("openai", tenant=False)
    assert await own.key_for(MODEL) == SHARED
    with pytest.raises(NotFound):
        await own.remove("openai", tenant=False)
    await administrators.remove("openai", tenant=True)
    assert await own.key_for(MODEL) is None


async def test_a_key_is_nowhere_to_be_read(
    context: ProcessContext, principal: Principal, capfd: pytest.CaptureFixture[str]
) -> None:
    service = ProviderKeyService(context, principal)
    told = [repr(await service.put("openai", OWN, tenant=tenant)) for tenant in (False, True)]
    async with context.database.transaction(principal.tenant_id) as tx:
        told += [repr(row) for row in await rows(tx)]
    told += [repr(entry) for entry in (await AuditService(context, principal).list(Filter())).items]
    told += [*capfd.readouterr(), repr(await service.list())]
    assert len(told) == 9
    for text in told:
        assert OWN not in text
        assert OWN[:-4] not in text
        assert base64.b64encode(OWN.encode()).decode()[:20] not in text


async def test_short_keys_give_no_hint(context: ProcessContext, principal: Principal) -> None:
    assert (await ProviderKeyService(context, principal).put("openai", "x" * 19, tenant=False)).hint == ""


@pytest.mark.parametrize("moved", ["holder", "provider", "tenant", "damaged"])
async def test_what_is_stored_opens_only_where_it_belongs(
    context: ProcessContext, principal: Principal, moved: str
) -> None:
    """Whoever can write rows cannot have their runs use the key of another."""
    thief = await new_user(context.database, principal.tenant_id)
    stranger = await new_principal(context.database)
    await ProviderKeyService(context, principal).put("openai", OWN, tenant=False)
    async with context.database.transaction(principal.tenant_id) as tx:
        sealed = (await rows(tx))[0]["sealed"]
    user, provider = {
        "holder": (thief, "openai"),
        "provider": (principal, "anthropic"),
        "tenant": (stranger, "openai"),
        "damaged": (principal, "openai"),
    }[moved]
    service = ProviderKeyService(context, user)
    await service.put(provider, "sk-another-0123456789", tenant=False)
    middle = len(sealed) // 2
    forged = (
        sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]
        if moved == "damaged"
        else sealed
    )
    async with context.database.transaction(user.tenant_id) as tx:
        await tx.connection.execute(
            update(provider_keys)
            .where(
                provider_keys.c.tenant_id == user.tenant_id,
                provider_keys.c.holder_id == user.user_id,
                provider_keys.c.provider == provider,
            )
            .values(sealed=forged)
        )
    with pytest.raises(Unsealable):
        await service.key_for(f"{provider}/model")


@pytest.mark.parametrize("role", [Role.READONLY, Role.USER])
async def test_rights(context: ProcessContext, principal: Principal, role: Role) -> None:
    caller = replace(await new_user(context.database, principal.tenant_id, role), rights=rights_of(role))
    service = ProviderKeyService(context, caller)
    for attempt in (service.put("openai", OWN, tenant=True), service.remove("openai", tenant=True)):
        with pytest.raises(PermissionDenied):
            await attempt
    if role is Role.READONLY:
        with pytest.raises(PermissionDenied):
            await service.put("openai", OWN, tenant=False)


async def test_another_tenant_has_none(context: ProcessContext, principal: Principal) -> None:
    for tenant in (False, True):
        await ProviderKeyService(context, principal).put("openai", OWN, tenant=tenant)
    stranger = ProviderKeyService(context, await new_principal(context.database))
    assert await stranger.key_for(MODEL) is None
    assert await stranger.list() == []
    with pytest.raises(NotFound):
        await stranger.remove("openai", tenant=True)


# ---------------------------------------------------------------------- the exchange of keys


def named(*names: str) -> str:
    return ",".join(f"{name}:{base64.b64encode((name * 32).encode()[:32]).decode()}" for name in names)


async def given_to_servers(context: ProcessContext, principal: Principal) -> list[dict[str, str] | None]:
    """Return what MCP servers are given, by the servers' names."""
    query = select(mcp_servers).where(mcp_servers.c.tenant_id == principal.tenant_id).order_by(mcp_servers.c.name)
    async with context.database.transaction(principal.tenant_id) as tx:
        rows = (await tx.connection.execute(query)).mappings().all()
    return [json.loads(SEALED_SERVERS.unseal(context.secrets, row)) if row["sealed"] else None for row in rows]


async def test_keys_of_the_installation_are_exchanged(
    make_settings: Any, settings: Settings, request: pytest.FixtureRequest
) -> None:
    same = {"database_url": settings.database_url}
    async with open_state(make_settings(**same, secret_keys=named("old"))) as context:
        first, second = [await new_principal(context.database) for _ in range(2)]
        for principal, key in ((first, OWN), (second, SHARED)):
            await ProviderKeyService(context, principal).put("openai", key, tenant=False)
            session_id = (await SessionService(context, principal).create()).id
            for given in ({"TOKEN": key}, {}):
                server = NewServer(f"of-{len(given)}", ["x"], given, "ask", enabled=True)
                await McpServerService(context, principal).add(session_id, server)
    both = make_settings(**same, secret_keys=named("new", "old"))
    async with open_state(both) as context:
        assert await ProviderKeyService(context, first).key_for(MODEL) == OWN
        if settings.database_url is None:
            with pytest.raises(DataFolderInUse):
                await rotate(both, context.secrets)
        secrets = context.secrets
    if settings.database_url is None:
        owners = both
    else:
        with pytest.raises(MigrationFailed):  # the gateway's own login does not see all tenants
            await rotate(both, secrets)
        postgres: Postgres = request.getfixturevalue("postgres")
        owners = make_settings(database_url=postgres.url(settings.database_url.rpartition("/")[2]))
    rotated = await rotate(owners, secrets)
    assert rotated.changed == 4
    lost = {tenant_id for tenant_id, _ in rotated.unsealable}  # of other tests, whose keys are gone
    assert not lost & {first.tenant_id, second.tenant_id}
    assert (await rotate(owners, secrets)).changed == 0
    async with open_state(make_settings(**same, secret_keys=named("new"))) as context:
        for principal, key in ((first, OWN), (second, SHARED)):
            assert await ProviderKeyService(context, principal).key_for(MODEL) == key
            assert await given_to_servers(context, principal) == [None, {"TOKEN": key}]
    async with open_state(make_settings(**same, secret_keys=named("third"))) as context:
        with pytest.raises(Unsealable, match="does not name any more"):
            await ProviderKeyService(context, first).key_for(MODEL)
        with pytest.raises(Unsealable, match="does not name any more"):
            await given_to_servers(context, first)


def test_the_program_says_what_it_did(tmp_path: Path) -> None:
    async def store(keys: str) -> None:
        settings = Settings(_env_file=None, data_dir=tmp_path / "data", secret_keys=keys)  # pyright: ignore[reportCallIssue]
        async with open_state(settings) as context:
            principal = await new_principal(context.database)
            await ProviderKeyService(context, principal).put("openai", OWN, tenant=False)

    asyncio.run(store(named("old")))
    asyncio.run(store(named("lost")))
    done = subprocess.run(
        [sys.executable, "-m", "carrel_gateway.provider_keys.rotate"],
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": os.pathsep.join(
                str(Path(__file__).parents[3] / part) for part in ("gateway", "operator", "kernel-image")
            ),
            "CARREL_DATA_DIR": str(tmp_path / "data"),
            "CARREL_SECRET_KEYS": named("new", "old"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (1, "1 secrets were encrypted anew\n"), done.stderr
    assert "cannot be opened: provider openai" in done.stderr
    assert OWN not in json.dumps([done.stdout, done.stderr])
