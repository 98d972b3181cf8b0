"""Keys of model providers over HTTP: stored, used by runs, never shown."""

from __future__ import annotations

import httpx
import pytest
from tests.support.fake_openai import Reply, fake_openai
from tests.support.serving import gateway as running_gateway

OWN, SHARED, SERVER = "sk-own-0123456789abcdefWXYZ", "sk-all-0123456789abcdefQRST", "sk-srv-0123456789abcdefGHIJ"


async def test_a_run_uses_the_nearest_key(tmp_path):
    replies = [Reply(f"<answer>\nanswer {place}\n</answer>") for place in range(3)]
    async with fake_openai(replies) as fake:
        settings = {"LLM_MODEL": "openai/fake-model", "LLM_API_BASE": fake.url, "LLM_API_KEY": SERVER}
        with running_gateway(tmp_path / "data", **settings) as running:
            headers = {"Authorization": f"Bearer {running.key}"}
            async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=90) as api:

                async def ask():
                    session = (await api.post("/api/sessions", json={})).json()["id"]
                    said = await api.post(f"/api/sessions/{session}/chat", json={"message": "hello"})
                    assert said.json()["status"] == "succeeded", said.text

                path = "/api/provider-keys/openai"
                shared = await api.put(path, json={"key": SHARED}, params={"scope": "tenant"})
                assert (shared.status_code, shared.json()["hint"]) == (200, "QRST")
                assert (await api.put(path, json={"key": OWN})).json()["scope"] == "own"
                await ask()
                assert (await api.delete(path)).status_code == 204
                await ask()
                assert (await api.delete(path, params={"scope": "tenant"})).status_code == 204
                await ask()
        assert fake.keys == [f"Bearer {key}" for key in (OWN, SHARED, SERVER)]
    log = (tmp_path / "data.log").read_text()
    assert all(key not in log for key in (OWN, SHARED, SERVER))


def test_a_key_of_ones_own_makes_a_model_usable(tmp_path):
    with running_gateway(tmp_path / "data", LLM_MODEL="openai/gpt-4o-mini") as running, running.client() as api:
        assert api.get("/api/models/openai/gpt-4o-mini/validate").json()["valid"] is False
        api.put("/api/provider-keys/openai", json={"key": OWN})
        assert api.get("/api/models/openai/gpt-4o-mini/validate").json()["valid"] is True
        (model,) = [item for item in api.get("/api/models").json()["items"] if item["default"]]
        assert model["key_present"] is True


def test_list_get_and_delete(api):
    path = "/api/provider-keys/anthropic"
    assert api.get(path).json()["code"] == "provider_key_not_found"
    stored = api.put(path, json={"key": OWN}).json()
    assert (stored["provider"], stored["scope"], stored["hint"]) == ("anthropic", "own", "WXYZ")
    assert api.get(path).json() == stored
    assert api.get("/api/provider-keys").json() == {"items": [stored]}
    assert api.get(path, params={"scope": "tenant"}).status_code == 404
    assert api.delete(path).status_code == 204
    assert api.delete(path).status_code == 404


@pytest.mark.parametrize(
    "key", ["short", "x" * 513, "with space in it", "line\nbreak-0123456789", "ключ-0123456789", None]
)
def test_what_is_no_key_is_refused_and_not_repeated(api, key):
    response = api.put("/api/provider-keys/openai", json={"key": key})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert key is None or key not in response.text


@pytest.mark.parametrize("provider", ["OpenAI", "a%2Fb", "x" * 41, "..%2f"])
def test_what_is_no_provider_is_refused(api, provider):
    assert api.put(f"/api/provider-keys/{provider}", json={"key": OWN}).status_code in {404, 422}
