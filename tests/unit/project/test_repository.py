"""The repository itself: rules that no linter knows.

* locks carry hashes and no addresses, and hold the floors that matter
* no module is longer than 500 lines; `operator/` stays a plain folder
* no file carries a path of one machine
* the documentation's tables of features and threats name tests that exist
* nothing outside a kernel's own process can unpickle
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_have_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    pins = re.findall(r"^([A-Za-z0-9_.\-]+(?:\[[^]]*])?)==", text, flags=re.MULTILINE)
    assert pins
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_locks_hold_the_floors() -> None:
    """Without floors a resolver silently takes years-old versions (`boto3` 0.0.3 has been seen)."""
    pins: dict[str, tuple[int, ...]] = {}
    for name, version in re.findall(
        r"^([a-z0-9\-]+)==([0-9.]+)", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE
    ):
        pins[name] = tuple(int(part) for part in version.rstrip(".").split("."))
    floors = {
        "boto3": (1, 44),
        "kopf": (1, 45, 2),
        "kubernetes": (37, 0, 1),
        "pyjwt": (2, 15, 1),
        "aiohttp": (3, 14, 5),
    }
    for name, floor in floors.items():
        assert pins[name] >= floor, name
    assert pins["kubernetes"] < (37, 0, 2)
    assert pins["litellm"] not in {(1, 82, 7), (1, 82, 8)}


def test_no_module_is_longer_than_500_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): n for path in tracked("*.py") if (n := len(path.read_text().splitlines())) > 500
    }
    assert long == {}


def test_folders_and_files_are_where_readers_look() -> None:
    expected = ["operator", "gateway", "kernel-image", "charts", "crds", "tests", "docs"]
    assert [name for name in expected if not (ROOT / name).is_dir()] == []
    files = ["pyproject.toml", "Makefile", "Dockerfile.gateway", "Dockerfile.kernel", "README.md", "LICENSE"]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_the_base_install_has_what_one_person_needs_and_extras_have_the_rest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=~! ;]", requirement)[0].lower() for requirement in requirements}

    base = names(project["dependencies"])
    assert {"litellm", "ipykernel", "pydantic", "pydantic-settings", "rich", "pandas", "fastapi", "sqlalchemy"} <= base
    extras = {name: names(requirements) for name, requirements in project["optional-dependencies"].items()}
    assert {"all", "operator", "db", "storage", "kernel"} <= set(extras)
    assert "kopf" in extras["operator"]
    assert not base & {"kopf", "kubernetes", "asyncpg", "redis"}, "a laptop does not need a cluster's parts"


def test_operator_folder_is_not_a_package() -> None:
    """It would shadow the standard library's `operator`, and Python would not start from the root."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_file_carries_a_machine_path() -> None:
    here = str(ROOT)
    if len(here) < 6:
        pytest.skip("the checkout lies too near the root to be told from other words")
    guilty = [path for path in tracked() if here.encode() in path.read_bytes()]
    assert guilty == []


ROW = re.compile(r"^\| (\d+) \|.*\| `([^`]+)` \|$", re.MULTILINE)


@pytest.mark.parametrize("page", ["docs/features.md", "docs/security/threat-model.md"])
def test_rows_name_tests_that_exist(page: str) -> None:
    rows = ROW.findall((ROOT / page).read_text())
    assert rows, f"{page} has no rows"
    assert len({number for number, _ in rows}) == len(rows), "a number appears twice"
    for number, reference in rows:
        path, _, name = reference.partition("::")
        assert (ROOT / path).is_file(), f"{page}: {number}: {path}"
        assert name, f"{page}: {number}: name the test, not only its file"
        assert re.search(rf"^\s*(async )?def {name}\b", (ROOT / path).read_text(), re.MULTILINE), (
            f"{number}: {reference}"
        )


def test_the_page_of_the_kernel_image_has_what_is_locked() -> None:
    page = (ROOT / "docs" / "reference" / "kernel-image.md").read_text()
    lock = (ROOT / "requirements" / "kernel.txt").read_text()
    asked = (ROOT / "requirements" / "kernel.in").read_text().partition("# data science")[2].split()
    listed = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([0-9][^ ]*) \|", page, re.MULTILINE))
    assert set(listed) == {*asked, "ipywidgets"}
    for name, version in listed.items():
        assert re.search(rf"^{name}=={re.escape(version)} ", lock, re.MULTILINE), f"{name} {version} is not in the lock"


UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "shelve", "marshal", "torch"}
LOADERS = {"read_pickle", "unpickle", "allow_pickle"}


def test_nothing_outside_a_kernel_unpickles() -> None:
    """Files, snapshots and notebooks of people are bytes for gateway, operator and kernel host."""
    inside = ROOT / "kernel-image" / "carrel_kernel" / "inside"
    sources = [path for path in tracked("*.py") if "tests" not in path.parts and inside not in path.parents]
    assert len(sources) > 100
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Attribute):
                names = {node.attr} & LOADERS
            elif isinstance(node, ast.keyword):
                names = {node.arg or ""} & LOADERS
            assert not names & (UNPICKLERS | LOADERS), f"{path.relative_to(ROOT)}: {names}"
