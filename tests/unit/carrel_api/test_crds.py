"""CustomResourceDefinitions: structural, bounded everywhere, as promised to kubectl; the files in crds/ are theirs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from carrel_api.common import Model
from carrel_api.crds import definitions
from carrel_api.generate import drift, files, main
from carrel_api.reference import page
from carrel_api.schema import structural_schema

ROOT = Path(__file__).parents[3]


def schema_of(name: str) -> dict[str, Any]:
    return definitions()[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from parts(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from parts(schema[name], f"{path}[]")


EVERY_PART = [
    pytest.param(part, id=f"{name.removesuffix('.yaml')}{path}")
    for name in definitions()
    for path, part in parts(schema_of(name))
    if path not in {".apiVersion", ".kind"}
]


@pytest.mark.parametrize("part", EVERY_PART)
def test_every_part_is_structural_and_bounded(part: dict[str, Any]):
    assert not {"$ref", "$defs", "title", "const", "oneOf"} & part.keys()
    if part.get("x-kubernetes-int-or-string"):
        assert {"maxLength", "pattern", "maximum"} <= part.keys()
        return
    assert part["type"] in {"object", "array", "string", "integer", "boolean"}
    if part["type"] == "string":
        assert "maxLength" in part or "enum" in part or part.get("format") == "date-time"
    if part["type"] == "array":
        assert "maxItems" in part
    if "additionalProperties" in part:
        assert "maxProperties" in part


@pytest.mark.parametrize("part", EVERY_PART)
def test_every_rule_says_what_must_be(part: dict[str, Any]):
    for entry in part.get("x-kubernetes-validations", []):
        assert " must be " in entry["message"]


@pytest.mark.parametrize("field", ["className", "image", "workspace", "owner", "tenant"])
def test_identity_is_immutable_and_its_presence_too(field: str):
    rules = [
        entry["rule"] for entry in schema_of("agentsessions.yaml")["properties"]["spec"]["x-kubernetes-validations"]
    ]
    [rule] = [text for text in rules if f"oldSelf.{field}" in text]
    assert f"has(self.{field}) == has(oldSelf.{field})" in rule


def test_kubectl_gets_short_names_category_status_and_columns():
    spec = definitions()["agentsessions.yaml"]["spec"]
    version = spec["versions"][0]
    assert (spec["names"]["shortNames"], spec["names"]["categories"]) == (["ags"], ["carrel"])
    assert version["subresources"] == {"status": {}}
    columns = [(column["name"], column.get("priority", 0)) for column in version["additionalPrinterColumns"]]
    assert columns == [
        ("Ready", 0), ("Reason", 0), ("Class", 0), ("Age", 0), ("Owner", 1), ("Node", 1), ("Endpoint", 1), ("Pool", 1)
    ]  # fmt: skip


def test_a_choice_between_two_types_is_refused():
    class Choice(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="one alternative"):
        structural_schema(Choice)


def test_maps_keep_the_schema_of_their_values():
    class Labels(Model):
        labels: dict[str, int] = Field(default={})

    assert structural_schema(Labels)["properties"]["labels"] == {
        "type": "object",
        "additionalProperties": {"type": "integer", "format": "int64"},
        "default": {},
    }


def test_the_files_in_the_repository_are_the_models():
    assert drift(ROOT / "crds") == []


def test_check_names_what_drifted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    first, second, *_ = sorted(files())
    (tmp_path / first).write_text("other", encoding="utf-8")
    (tmp_path / second).unlink()
    (tmp_path / "more.yaml").write_text("", encoding="utf-8")
    assert main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{first} differs" in said
    assert f"{second} is missing" in said
    assert "more.yaml is none of the resources" in said


def test_the_reference_page_is_made_from_the_schema():
    assert (ROOT / "docs/reference/custom-resources.md").read_text(encoding="utf-8") == page()
