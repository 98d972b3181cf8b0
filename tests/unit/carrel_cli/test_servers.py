"""What a gateway that is started for a command is told, and what it is not: settings of files stay in force.

Plan: the data folder is the one that the gateway would use; a model is added to those of the settings, so that routes
between them hold; how it logs is a preference, which whatever says something of it overrides; the same of `serve`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from carrel_cli.errors import Usage
from carrel_cli.servers import _environment, data_folder
from carrel_gateway import __main__, serving
from carrel_gateway.settings import Settings


def test_the_data_folder_is_that_of_the_gateway(home, tmp_path, monkeypatch):
    assert data_folder(None) == home == Settings().data_dir
    (home / "config.yaml").write_text(f"data_dir: {tmp_path / 'of-the-file'}\n")
    assert data_folder(None) == tmp_path / "of-the-file" == Settings().data_dir
    monkeypatch.setenv("DSAGENT_DATA_DIR", "here")
    assert data_folder(None) == Path.cwd() / "here" == Settings().data_dir
    assert data_folder(tmp_path) == tmp_path
    (home / "config.yaml").write_text("data_dir: [\n")
    with pytest.raises(Usage, match="is not right"):
        data_folder(None)


@pytest.mark.parametrize("models", ["models: [openai/b, openai/c]", "models: openai/b,openai/c"])
def test_a_model_is_added_to_those_of_the_settings(models, home, monkeypatch):
    (home / "config.yaml").write_text(
        f"llm_model: openai/a\n{models}\nmodel_routes: {{openai/a: {{start: openai/b}}}}\n"
    )
    monkeypatch.setenv("CARREL_MODELS", _environment("openai/d")["CARREL_MODELS"])
    settings = Settings()
    assert settings.llm_model == "openai/a"
    assert settings.models == ["openai/d", "openai/b", "openai/c"]
    assert "CARREL_LLM_MODEL" not in _environment("openai/d")
    monkeypatch.delenv("CARREL_MODELS")
    assert "CARREL_MODELS" not in _environment(None)


def test_how_it_logs_is_a_preference(home):
    assert _environment(None)["CARREL_LOG_LEVEL"] == "error"
    Path(".env").write_text("DSAGENT_LOG_LEVEL=debug\n")
    assert "CARREL_LOG_LEVEL" not in _environment(None)
    assert _environment(None)["CARREL_LOG_FORMAT"] == "console"


def test_serve_prefers_a_format_of_its_own(home, monkeypatch):
    served: list[str] = []
    monkeypatch.setattr(serving, "serve", lambda settings, **_: served.append(settings.log_format) or 0)
    assert __main__.main([], log_format="console") == 0
    (home / ".env").write_text("CARREL_LOG_FORMAT=json\n")
    assert __main__.main([], log_format="console") == 0
    assert served == ["console", "json"]
