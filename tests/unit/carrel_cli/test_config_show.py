"""`carrel config show`: every setting, its value and where it came from.

Plan: each place and name is told, defaults as such, and what follows from other settings; no secret is shown, wherever
it is; `--changed` leaves defaults out; settings that cannot be used are shown beside the reason, with exit code 2.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carrel_cli.main import app
from carrel_gateway.settings import Settings
from carrel_gateway.sources.showing import masked

SECRET = "hidden-4711"


def show(*options):
    return CliRunner().invoke(app, ["config", "show", *options])


def test_each_setting_and_where_it_came_from(home, monkeypatch):
    (home / "config.yaml").write_text("log_level: warning\nmodels: [openai/a, openai/b]\n")
    Path(".env").write_text("REDIS_HOST=cache\nDSAGENT_PORT=9000\n")
    monkeypatch.setenv("LLM_MODEL", "openai/gpt-4o")
    monkeypatch.setenv("OPENAI_MODEL", "gpt-4o")
    done = show("--json")
    assert done.exit_code == 0, done.output
    found = {one["name"]: (one["value"], one["source"]) for one in json.loads(done.stdout)["settings"]}
    assert list(found) == list(Settings.model_fields)
    assert found["log_level"] == ("warning", f"log_level ({home / 'config.yaml'})")
    assert found["models"] == (["openai/a", "openai/b"], f"models ({home / 'config.yaml'})")
    assert found["port"] == (9000, "DSAGENT_PORT (.env)")
    assert found["llm_model"] == ("openai/gpt-4o", "LLM_MODEL")
    assert found["redis_url"] == ("redis://cache:6379/0", "other settings")
    assert found["host"] == ("127.0.0.1", "default")
    assert json.loads(done.stdout)["warnings"] == [
        "LLM_MODEL and OPENAI_MODEL differ; LLM_MODEL is used, OPENAI_MODEL is not"
    ]
    table = show("--changed")
    rows = {line.split()[0]: line for line in table.stdout.splitlines()[1:]}
    assert set(rows) == {
        f"CARREL_{name}" for name in ("PORT", "LOG_LEVEL", "REDIS_URL", "REDIS_HOST", "LLM_MODEL", "MODELS")
    }
    assert rows["CARREL_PORT"].split() == ["CARREL_PORT", "9000", "DSAGENT_PORT", "(.env)"]
    assert "carrel: LLM_MODEL and OPENAI_MODEL differ" in table.stderr


@pytest.mark.parametrize("broken", [False, True])
def test_no_secret_is_shown(broken, home, monkeypatch):
    (home / ".env").write_text(f"LLM_API_KEY={SECRET}\n")
    urls = {
        "CARREL_DATABASE_URL": f"postgresql://carrel:{SECRET}@db/carrel?sslpassword={SECRET}&x=1",
        "CARREL_REDIS_URL": f"redis://:{SECRET}@cache",
        "CARREL_SMTP_URL": f"smtp://carrel:{SECRET}@mail",
        "CARREL_SECRET_KEYS": SECRET,
        "CARREL_MODEL_ROUTES": json.dumps({"demo/analyst": {"api_key": SECRET, "max_tokens": 99}}),
        **({"CARREL_PORT": "none"} if broken else {}),
    }
    for name, value in urls.items():
        monkeypatch.setenv(name, value)
    for options in (["--json"], []):
        done = show(*options)
        assert SECRET not in done.output
        assert "postgresql://carrel:********@db/carrel?sslpassword=********&x=1" in done.output
        assert done.exit_code == (2 if broken else 0)
        assert ("CARREL_PORT: Input should be a valid integer" in done.output) is broken


def test_a_place_that_cannot_be_read(monkeypatch, home):
    monkeypatch.setenv("CARREL_CONFIG_FILE", str(home / "none.yaml"))
    done = show()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"carrel: the configuration file {home / 'none.yaml'} cannot be read")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://ada@h", "redis://ada@h"),
        ("redis://:s@h:1/0", "redis://:********@h:1/0"),
        ("postgresql://u:p/?&@:w@h:5432/d?sslmode=require&PassFile=x&a=", "postgresql://u:********@h:5432/d?sslmode=require&PassFile=********&a="),
        ("http://h/?a=1#b", "http://h/?a=1#b"),
        ("no address: a@b?key=1", "no address: a@b?key=1"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_their_secrets(address, said):
    assert masked(address) == said
    assert masked({"one": [address], "api_key": "s", "max_tokens": 3}) == {
        "one": [said],
        "api_key": "********",
        "max_tokens": 3,
    }
