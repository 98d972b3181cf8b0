"""Who shares a budget with whom, and what a call of it costs."""

from __future__ import annotations

import pytest

from carrel_gateway.context import Principal
from carrel_gateway.errors import TooMany
from carrel_gateway.rates.service import RateLimits
from carrel_gateway.settings import Settings
from carrel_gateway.storage.ids import new_id
from carrel_gateway.storage.windows import MemoryWindows


def limits(tmp_path, **rates):
    return RateLimits(Settings(_env_file=None, data_dir=tmp_path, **rates), MemoryWindows())


async def until_refused(call):
    for count in range(1000):
        try:
            await call()
        except TooMany as error:
            return count, error
    return 1000, None


async def test_a_user_has_one_budget_with_all_keys(tmp_path):
    rates = limits(tmp_path, rate_per_principal=2)
    tenant, user = new_id(), new_id()
    keys = [Principal(tenant_id=tenant, user_id=user, credential_id=new_id()) for _ in range(40)]
    count, error = await until_refused(lambda: rates.count(keys.pop()))
    assert count == 20
    assert (error.code, error.status, error.detail["reason"]) == ("rate_limited", 429, "rate")
    assert error.retry_after_seconds >= 1
    await rates.count(Principal(tenant_id=new_id(), user_id=user))
    await rates.count(Principal(tenant_id=tenant, user_id=new_id()))
    with pytest.raises(TooMany):
        await rates.count(keys.pop(), message=True)


@pytest.mark.parametrize(
    ("route", "calls"),
    [("/api/auth/refresh", 60), ("/api/auth/login", 30), ("/api/auth/new-one", 30), ("/api/auth/register", 12)],
)
async def test_logins_have_a_budget_by_weight(tmp_path, route, calls):
    rates = limits(tmp_path, rate_per_address=100, rate_of_logins=60)
    count, _ = await until_refused(lambda: rates.count_stranger("192.0.2.1", route))
    assert count == calls
    with pytest.raises(TooMany):
        await rates.count_stranger("192.0.2.1", "/api/auth/reset")
    await rates.count_stranger("192.0.2.1", "/info")
    await rates.count_stranger("192.0.2.2", route)


async def test_a_budget_that_is_smaller_than_a_call_lets_one_through(tmp_path):
    rates = limits(tmp_path, rate_of_logins=1)
    assert (await until_refused(lambda: rates.count_stranger("192.0.2.1", "/api/auth/register")))[0] == 1


@pytest.mark.parametrize(
    ("executor", "calls"), [({}, 1000), ({"executor_type": "kubernetes", "kernel_private_key_file": "key.pem"}, 200)]
)
async def test_defaults(tmp_path, executor, calls):
    rates = limits(tmp_path, **executor)
    count, _ = await until_refused(lambda: rates.count_stranger("192.0.2.1", "/info"))
    assert count == calls
