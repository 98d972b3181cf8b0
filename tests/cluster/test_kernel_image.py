"""What is in the kernel image, asked of a pod under the restricted Pod Security Standard.

Plan: every package of the curated set can be imported and has the version of the lock; no package runs code of its own
at every start of Python (`.pth` files); nothing of the image can be written; it runs as nobody in particular.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.cluster.pods import output, python_pod
from tests.cluster.provider.base import Cluster
from tools.images import Image

ROOT = Path(__file__).parents[2]
MODULES = {
    "duckdb": "duckdb",
    "ipywidgets": "ipywidgets",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "openpyxl": "openpyxl",
    "pandas": "pandas",
    "plotly": "plotly",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "seaborn": "seaborn",
    "statsmodels": "statsmodels",
    "ta": "ta",
    "xgboost-cpu": "xgboost",
}
PROBE = """
import importlib, importlib.metadata, json, os, pathlib, sys, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
versions = {}
for name, module in MODULES.items():
    importlib.import_module(module)
    versions[name] = importlib.metadata.version(name)
print(json.dumps({
    "versions": versions,
    "pth": sorted(path.name for path in site.glob("*.pth")),
    "writable": [path for path in (str(site), sys.prefix, "/usr") if os.access(path, os.W_OK)],
    "user": os.getuid(),
}))
"""


def test_the_curated_packages_are_there_and_nothing_can_be_changed(
    cluster: Cluster, namespace: str, image: Callable[[str], Image]
) -> None:
    pod = python_pod("contents", f"MODULES = {MODULES!r}\n{PROBE}", image=image("kernel").tag)
    pod["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1Gi"
    cluster.apply(pod, namespace=namespace)
    found = json.loads(output(cluster, namespace, "contents", seconds=180).splitlines()[-1])
    locked = (ROOT / "requirements" / "kernel.txt").read_text()
    for name, version in found["versions"].items():
        assert re.search(rf"^{name}=={re.escape(version)}\b", locked, re.MULTILINE), f"{name} {version}"
    assert found["pth"] == []
    assert found["writable"] == []
    assert found["user"] == 65532
