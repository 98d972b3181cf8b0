"""Settings of files and variables, as a whole gateway takes them when it starts.

Plan: what each place says is in force; two names that differ are in the log without their values; an unknown name and a
value that cannot be used end the start with exit code 2, each in one line.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import serving

SECRET = "hidden-4711"


def test_files_are_in_force_and_names_that_differ_are_told(tmp_path: Path) -> None:
    config = tmp_path / "carrel.yaml"
    config.write_text(
        "llm_model: openai/a\nmodels: [openai/b, anthropic/c]\nupload_max_bytes: 5\n"
        "model_routes: {openai/a: {start: openai/b, fallbacks: [demo/analyst]}}\n"
    )
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\nDSAGENT_API_KEY={'k' * 40}\nARTIFACT_MAX_SIZE_MB=2\n")
    named = {"CARREL_CONFIG_FILE": str(config), "CARREL_API_KEY": SECRET * 4, "CARREL_LOG_LEVEL": "warning"}
    with serving.gateway(tmp_path / "data", **named) as gateway, gateway.client() as client:
        assert gateway.key == SECRET * 4
        info = client.get("/info").json()
        assert (info["default_model"], info["upload_max_bytes"]) == ("openai/a", 2 * 1024 * 1024)
        keys = {one["name"]: one["key_present"] for one in client.get("/api/models").json()["items"]}
        assert keys == {"openai/a": True, "openai/b": True, "anthropic/c": False, "demo/analyst": True}
    text = (tmp_path / "data.log").read_text()
    warnings = [line["warning"] for line in map(json.loads, text.splitlines()) if line["event"] == "settings"]
    assert warnings == [
        "CARREL_API_KEY and DSAGENT_API_KEY (.env) differ; CARREL_API_KEY is used, DSAGENT_API_KEY (.env) is not"
    ]
    assert SECRET not in text
    assert "k" * 40 not in text


def test_what_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"CARREL_API_KYE={SECRET}\n")
    with pytest.raises(RuntimeError) as refused:
        serving.start(tmp_path / "data", CARREL_PROT=SECRET)
    assert str(refused.value).splitlines() == [
        "carrel: CARREL_PROT is no setting; did you mean CARREL_PORT?",
        "carrel: CARREL_API_KYE (.env) is no setting; did you mean CARREL_API_KEY?",
    ]
