"""Signing in with another server over HTTP: where the browser is sent, and the cookies on the way.

What the provider may not get away with is in `tests/integration/storage/test_signing_in.py`.
"""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from tests.support.fake_issuer import CLIENT_ID, CLIENT_SECRET, fake_issuer
from tests.support.servers import free_port
from tests.support.serving import start

ATTEMPT = r"__Host-carrel-oidc=[\w.=-]+; HttpOnly; Max-Age=600; Path=/; SameSite=lax; Secure"
REFRESH = r"__Host-carrel-refresh=crf_[\w-]+; HttpOnly; Max-Age=\d+; Path=/; SameSite=strict; Secure"


@pytest.mark.timeout(240)
async def test_a_browser_is_sent_there_and_comes_back(tmp_path):
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    async with fake_issuer() as issuer:
        issuer.redirect_uris = {f"{here}/api/auth/oidc/callback"}
        issuer.person = {"sub": "ada", "name": "Ada", "email": "ada@example.org", "email_verified": True}
        await asyncio.to_thread((tmp_path / "secret").write_text, CLIENT_SECRET)
        told = {
            "CARREL_OIDC_ISSUER": issuer.url,
            "CARREL_OIDC_CLIENT_ID": CLIENT_ID,
            "CARREL_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
        }
        gateway = await asyncio.to_thread(start, tmp_path / "data", port=port, **told)
        try:
            async with httpx.AsyncClient(base_url=here, timeout=60) as http:
                await sign_in(http)
        finally:
            await asyncio.to_thread(gateway.stop)
    log = await asyncio.to_thread((tmp_path / "data.log").read_text)
    assert '"method":"oidc"' in log
    for secret in ("ada@example.org", *issuer.codes, CLIENT_SECRET):
        assert secret not in log


async def sign_in(http: httpx.AsyncClient) -> None:
    assert (await http.get("/info")).json()["oidc"] is True
    away = await http.get("/api/auth/oidc/login")
    assert away.status_code == 303
    assert re.fullmatch(ATTEMPT, away.headers["set-cookie"])
    back = (await http.get(away.headers["location"])).headers["location"]
    http.cookies.clear()
    refused = await http.get(back)
    assert (refused.status_code, refused.json()["code"]) == (401, "oidc_refused")
    assert "set-cookie" not in refused.headers
    attempt = {"Cookie": away.headers["set-cookie"].partition(";")[0]}
    there = await http.get(back, headers=attempt)
    assert (there.status_code, there.headers["location"]) == (303, "/account")
    refresh, gone = there.headers.get_list("set-cookie")
    assert re.fullmatch(REFRESH, refresh)
    assert gone.startswith('__Host-carrel-oidc=""')
    http.cookies.clear()
    kept = {"Cookie": refresh.partition(";")[0]}
    tokens = (await http.post("/api/auth/refresh", headers=kept)).json()
    me = await http.get("/api/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert (me.json()["name"], me.json()["role"]) == ("Ada", "user")
    again = await http.get(back, headers=attempt)
    assert (again.status_code, again.json()["code"]) == (401, "oidc_refused")
