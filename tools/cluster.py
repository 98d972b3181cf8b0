"""The whole product on a cluster, to try it on: `make cluster` and `make cluster-down`.

    python -m tools.cluster up       finds or makes a cluster, builds and loads the images, installs stores and chart
    python -m tools.cluster down     takes away what `up` made: the cluster, or on a cluster of yours all objects

Running `up` again brings a changed working tree onto the cluster and keeps data and keys. Which cluster is used is the
business of tests/cluster/provider; what is installed, of charts/carrel and tools/evaluation.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.bare.archive import write_archive
from tests.cluster.provider import choice, named
from tests.cluster.provider.base import Cluster, KubectlError, ProviderError

from tools.evaluation import services
from tools.go_tools import ToolError, cache_folder, ensure, tool_path
from tools.images import Image, ImageError, build

CHART: Final = Path(__file__).resolve().parent.parent / "charts" / "carrel"
RELEASE: Final = "carrel"
NAMESPACE: Final = "carrel"
SESSIONS: Final = "carrel-sessions"
DEFINITIONS: Final = ("agentsessions.carrel.dev", "sessionclasses.carrel.dev")
GATEWAY_NODE_PORT: Final = 30800
HELM_SECONDS: Final = 300
MIB: Final = 1024 * 1024


class HelmError(Exception):
    """Helm failed; the message is its own."""


@dataclass(frozen=True)
class Access:
    """How to get at what was installed."""

    kubeconfig: Path
    gateway: str
    """Address of the gateway as seen from this machine."""
    api_key: str


def up(cluster: Cluster) -> Access:
    """Install or update everything on a cluster, and wait until it is ready.

    Raises
    ------
    ProviderError, ImageError, ToolError, HelmError
        A step failed; the message says which and why.
    """
    images = {name: _loaded(cluster, name) for name in ("kernel", "gateway", "operator", "evaluation")}
    cluster.load_image(_object_store_archive())
    _say("starting Postgres, Redis and the S3 server")
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}})
    passwords = _passwords(cluster)
    cluster.apply(*services.objects(), namespace=NAMESPACE)
    for name in services.NAMES:
        cluster.kubectl("rollout", "status", f"deployment/{name}", f"--namespace={NAMESPACE}", "--timeout=180s")
    _say("installing the chart")
    helm(cluster, "upgrade", "--install", RELEASE, str(CHART), "--values=-", "--wait", f"--timeout={HELM_SECONDS}s",
         stdin=json.dumps(values(images, passwords, cluster.node_address)))  # fmt: skip
    key = _secret(cluster, f"{RELEASE}-gateway")["CARREL_API_KEY"]
    return Access(cluster.kubeconfig, f"http://{cluster.node_address}:{GATEWAY_NODE_PORT}", key)


def _loaded(cluster: Cluster, name: str) -> Image:
    image = build(name)
    _say(f"loading {image.tag}")
    cluster.load_image(image.archive)
    return image


def _object_store_archive() -> Path:
    program = ensure("versitygw")
    archive = cache_folder() / "images" / f"{tool_path('versitygw').parent.name}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        write_archive(program, "/versitygw", services.OBJECTS_IMAGE, archive)
    return archive


def _passwords(cluster: Cluster) -> Mapping[str, str]:
    """Return the passwords of the stores: those of the last time, because they are in the stores' volumes."""
    try:
        return _secret(cluster, services.SECRET)
    except KubectlError:
        made = {name: secrets.token_hex(16) for name in services.CREDENTIALS}
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": services.SECRET}, "stringData": made}
        cluster.apply(document, namespace=NAMESPACE)
        return made


def _secret(cluster: Cluster, name: str) -> dict[str, str]:
    data: dict[str, str] = cluster.get("secret", name, f"--namespace={NAMESPACE}")["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def values(images: Mapping[str, Image], passwords: Mapping[str, str], node_address: str) -> dict[str, Any]:
    """Return the values of the chart for an evaluation."""
    database = f"postgres.{NAMESPACE}.svc:5432/carrel"
    return {
        "images": {
            name: {"repository": f"localhost/carrel-{name}", "tag": "dev"} for name in ("gateway", "operator", "kernel")
        },
        "sessions": {"namespace": {"name": SESSIONS}},
        "gateway": {
            "podAnnotations": {"carrel.dev/image": images["gateway"].digest},  # the tag stays: a new image is a rollout
            "service": {"type": "NodePort", "nodePort": GATEWAY_NODE_PORT},
            "settings": {
                "storage_type": "s3",
                "s3_bucket": services.BUCKET,
                "s3_endpoint": f"http://objects.{NAMESPACE}.svc:{services.OBJECTS_PORT}",
                "s3_public_endpoint": f"http://{node_address}:{services.OBJECTS_NODE_PORT}",
            },
            "secrets": {
                "databaseUrl": f"postgresql://carrel_gateway:{passwords['gateway-password']}@{database}",
                "migrationDatabaseUrl": f"postgresql://carrel_migrator:{passwords['migrator-password']}@{database}",
                "redisUrl": f"redis://:{passwords['redis-password']}@redis.{NAMESPACE}.svc:6379/0",
                "s3AccessKey": passwords["s3-access-key"],
                "s3SecretKey": passwords["s3-secret-key"],
            },
        },
        "operator": {"podAnnotations": {"carrel.dev/image": images["operator"].digest}},
    }


def helm(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Return what Helm prints.

    Raises
    ------
    HelmError
        It failed.
    """
    where = (f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}")
    command = [str(ensure("helm")), *arguments, *where]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=2 * HELM_SECONDS)
    if done.returncode:
        raise HelmError(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def remove(cluster: Cluster) -> None:
    """Take every object of `up` away from a cluster that stays."""
    try:
        helm(cluster, "uninstall", RELEASE, "--wait", "--ignore-not-found")
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, SESSIONS, "--ignore-not-found")
        cluster.kubectl("delete", "customresourcedefinition", *DEFINITIONS, "--ignore-not-found")


def down() -> None:
    """Take away what `up` made."""
    given = named.find()
    if isinstance(given, Cluster):
        remove(given)
    else:
        choice.delete()


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _explain(cluster: Cluster, access: Access) -> str:
    return f"""
Carrel runs on {cluster.name}.

  kubeconfig   {access.kubeconfig}
  gateway      {access.gateway}
  API key      {access.api_key}

Try, from the root of the repository:

  export KUBECONFIG={access.kubeconfig} CARREL_API_KEY={access.api_key}
  curl {access.gateway}/health/ready
  .venv/bin/carrel run "Which columns are correlated?" --data your.csv --server {access.gateway}
  kubectl get agentsessions,pods --namespace {SESSIONS}

make cluster-down takes it away again.
"""


def main() -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "down"])
    command = parser.parse_args().command
    try:
        if command == "down":
            down()
        else:
            cluster = choice.choose()
            _say(f"using {cluster.name}")
            print(_explain(cluster, up(cluster)))
    except (choice.NoCluster, ProviderError, ImageError, ToolError, HelmError) as error:
        sys.stderr.write(f"make cluster: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
