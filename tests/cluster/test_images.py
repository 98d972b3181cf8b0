"""What goes into the images and when they are built anew. Nothing is built here and no cluster is needed.

Plan: the lock of each image holds what its packages import, also inside functions, and nothing that has no business
there; a change of a source, a lock or a Dockerfile makes a new image, a change of anything else does not; errors say
what to do.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from tools import go_tools, images

OWN = {path.name for part in ("operator", "gateway", "kernel-image") for path in (images.ROOT / part).iterdir()}
PRODUCT = ["gateway", "kernel", "operator"]


def locked(name: str) -> set[str]:
    text = (images.ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))


def imported(folder: Path) -> set[str]:
    """Top-level names that a package imports, wherever the import stands, but under `TYPE_CHECKING`."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("name", PRODUCT)
def test_the_lock_of_an_image_holds_what_its_packages_import(name: str) -> None:
    distributions = packages_distributions()
    packages = [images.ROOT / part for part in images.SOURCES[name].inputs if not part.endswith(".txt")]
    here = {package.name for package in packages}
    assert packages
    for package in packages:
        for module in imported(package) - set(sys.stdlib_module_names):
            if module in OWN:
                assert module in here, f"{package.name} imports {module}, which is not in the image {name}"
                continue
            candidates = {re.sub(r"[-_.]+", "-", one).lower() for one in distributions.get(module, [module])}
            assert candidates & locked(name), f"{package.name} imports {module}; add it to requirements/{name}.in"


def test_model_libraries_are_in_the_gateway_alone() -> None:
    assert "litellm" in locked("gateway")
    for name in ("kernel", "operator"):
        assert {"litellm", "openai", "boto3"} & locked(name) == set()
    assert {"kubernetes", "sqlalchemy", "fastapi"} & locked("kernel") == set()


def test_images_take_their_versions_from_the_lock_that_tests_run_with() -> None:
    def pins(name: str) -> set[str]:
        text = (images.ROOT / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^([a-z0-9.-]+==[^ ;\\]+)", text, re.MULTILINE))

    for name in PRODUCT:
        assert pins(name) - pins("dev") == set()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with what the kernel image is made from, and something beside it."""
    for name in (
        "Dockerfile.kernel",
        ".dockerignore",
        "README.md",
        "requirements/kernel.txt",
        "requirements/kernel-build.txt",
        "kernel-image/carrel_wire/events.py",
        "kernel-image/carrel_kernel/server.py",
        "kernel-image/carrel_kernel/__pycache__/server.pyc",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("kernel-image/carrel_kernel/server.py", True),
        ("kernel-image/carrel_wire/events.py", True),
        ("requirements/kernel.txt", True),
        ("Dockerfile.kernel", True),
        ("README.md", False),
        ("kernel-image/carrel_kernel/__pycache__/server.pyc", False),
    ],
)
def test_an_image_is_new_when_its_sources_are(tree: Path, name: str, new: bool) -> None:
    before = images.digest_of("kernel", "base")
    assert images.digest_of("kernel", "base") == before
    (tree / name).write_text("changed")
    assert (images.digest_of("kernel", "base") != before) is new


def test_an_image_is_new_when_a_file_moves_or_the_base_changes(tree: Path) -> None:
    before = images.digest_of("kernel", "base")
    assert images.digest_of("kernel", "another") != before
    (tree / "kernel-image/carrel_kernel/server.py").rename(tree / "kernel-image/carrel_kernel/host.py")
    assert images.digest_of("kernel", "base") != before


def test_an_image_without_its_sources_is_an_error(tree: Path) -> None:
    (tree / "requirements/kernel.txt").unlink()
    with pytest.raises(images.ImageError, match=r"requirements/kernel\.txt is not there"):
        images.digest_of("kernel", "base")


def test_an_unknown_image_is_an_error() -> None:
    with pytest.raises(images.ImageError, match="must be one of evaluation, gateway, kernel, operator"):
        images.build("ui")


def test_without_docker_and_buildah_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(images.ImageError, match="Docker, or with buildah as root"):
        images.build("kernel")


def test_an_unknown_tool_is_an_error() -> None:
    with pytest.raises(go_tools.ToolError, match="must be one of coredns, helm"):
        go_tools.ensure("kubectl")


def test_a_tool_without_go_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(go_tools.ToolError, match="which is not on PATH: install Go"):
        go_tools.ensure("helm")
    assert not go_tools.tool_path("helm").exists()
