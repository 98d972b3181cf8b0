"""The page of settings is complete.

Plan: every setting has a row with its name, its default, its description and its other names; no row is about something
that is not there; files of the folder of secrets are what the page says.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carrel_gateway.settings import Settings

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "settings.md").read_text("utf-8")
ROWS = {found.group(1): found.group(0) for found in re.finditer(r"^\| `(CARREL_[A-Z0-9_]+)` \|.*$", PAGE, re.MULTILINE)}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row(name):
    field = Settings.model_fields[name]
    row = ROWS[f"CARREL_{name.upper()}"]
    default = "" if field.default in (None, [], "") else f"`{field.default}`"
    others = [
        alias
        for alias in field.validation_alias.choices
        if alias != name and not alias.startswith(("CARREL_", "DSAGENT_"))
    ]
    also = ", ".join(f"`{alias}`" for alias in others)
    assert row == f"| `CARREL_{name.upper()}` | {default} | {field.description} | {also} |"


def test_files_of_a_folder_are_variables_and_go_first(tmp_path, monkeypatch):
    monkeypatch.setenv("CARREL_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("CARREL_S3_SECRET_KEY", "of the environment")
    monkeypatch.setenv("CARREL_API_KEY", "of the environment")
    for name, value in (("CARREL_S3_SECRET_KEY", "of a file\n"), ("llm_api_key", "in lower case"), ("other", "x")):
        (tmp_path / name).write_text(value)
    settings = Settings(_env_file=None)
    assert settings.s3_secret_key.get_secret_value() == "of a file"
    assert settings.llm_api_key.get_secret_value() == "in lower case"
    assert settings.api_key.get_secret_value() == "of the environment"
    monkeypatch.setenv("CARREL_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="CARREL_SECRETS_DIR"):
        Settings(_env_file=None)


def test_no_row_about_what_is_not_there():
    assert set(ROWS) == {f"CARREL_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("CARREL_LLM_MODEL", "llm_model"),
        ("DSAGENT_LLM_MODEL", "llm_model"),
        ("LLM_MODEL", "llm_model"),
        ("OPENAI_MODEL", "llm_model"),
        ("LLM_API_BASE", "llm_api_base"),
        ("DSAGENT_S3_REGION", "s3_region"),
        ("CARREL_HOST", "host"),
    ],
)
def test_names_are_read(variable, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "from-the-environment")
    assert getattr(Settings(), name) == "from-the-environment"


@pytest.mark.parametrize("variable", ["SANDBOX_MAX_MEMORY_MB", "CARREL_KERNEL_MEMORY_MB"])
def test_memory_is_in_mebibytes(variable, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "512")
    assert Settings().kernel_memory_mb == 512
