"""The page of settings is complete.

Plan: every setting has a row with its name, its default, its description and its other names; no row is about something
that is not there; files of the folder of secrets are what the page says.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carrel_gateway.settings import Settings, names

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "settings.md").read_text("utf-8")
ROWS = {found.group(1): found.group(0) for found in re.finditer(r"^\| `(CARREL_[A-Z0-9_]+)` \|.*$", PAGE, re.MULTILINE)}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row(name):
    field = Settings.model_fields[name]
    row = ROWS[f"CARREL_{name.upper()}"]
    default = "" if field.default in (None, [], {}, "") else f"`{field.default}`"
    also = ", ".join(f"`{alias}`" for alias in names().of[name][2:])
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
