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
import tempfile
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
DEFINITIONS: Final = ("agentsessions.carrel.dev", "sessionclasses.carrel.dev", "sessionpools.carrel.dev")
HELM_SECONDS: Final = 300


class HelmError(Exception):
    """Helm failed; the message is its own."""


@dataclass(frozen=True)
class Place:
    """Where on a cluster the product is put; two of them can stand beside each other on one cluster."""

    namespace: str = "carrel"
    sessions: str = "carrel-sessions"
    session_class: str = "default"
    gateway_port: int = 30800
    """Port of the node on which the gateway is reached from outside the cluster."""
    objects_port: int = 30870
    """The same for the S3 server."""


@dataclass(frozen=True)
class Access:
    """How to get at what was installed."""

    kubeconfig: Path
    gateway: str
    """Address of the gateway as seen from this machine."""
    api_key: str


def up(cluster: Cluster, place: Place = Place(), changes: Mapping[str, Any] | None = None) -> Access:
    """Install or update everything on a cluster, and wait until it is ready.

    Parameters
    ----------
    cluster
        Where.
    place
        Namespaces and ports.
    changes
        Values of the chart that are merged over those of an evaluation.

    Raises
    ------
    ProviderError, ImageError, ToolError, HelmError
        A step failed; the message says which and why.
    """
    images = {name: _loaded(cluster, name) for name in ("kernel", "gateway", "operator", "evaluation")}
    cluster.load_image(_object_store_archive())
    passwords = _stores(cluster, place)
    _say("installing the chart")
    given = [values(images, passwords, cluster.node_address, place), *([dict(changes)] if changes else [])]
    with tempfile.TemporaryDirectory() as folder:  # readable by this user alone: the values hold passwords
        options: list[str] = []
        for number, document in enumerate(given):
            file = Path(folder, f"{number}.json")
            file.write_text(json.dumps(document))
            options.append(f"--values={file}")
        wait = ("--wait", f"--timeout={HELM_SECONDS}s")
        # Tests of the operator bring the definitions by themselves; Helm takes over what it finds.
        helm(cluster, place, "upgrade", "--install", "--take-ownership", RELEASE, str(CHART), *options, *wait)
    key = _secret(cluster, place, f"{RELEASE}-gateway")["CARREL_API_KEY"]
    return Access(cluster.kubeconfig, f"http://{cluster.node_address}:{place.gateway_port}", key)


def _stores(cluster: Cluster, place: Place) -> Mapping[str, str]:
    """Start Postgres, Redis and the S3 server; return their passwords."""
    _say("starting Postgres, Redis and the S3 server")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.namespace, "labels": labels}})
    passwords = _passwords(cluster, place)
    cluster.apply(*services.objects(place.objects_port), namespace=place.namespace)
    for name in services.NAMES:
        cluster.kubectl("rollout", "status", f"deployment/{name}", f"--namespace={place.namespace}", "--timeout=180s")
    return passwords


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


def _passwords(cluster: Cluster, place: Place) -> Mapping[str, str]:
    """Return the passwords of the stores: those of the last time, because they are in the stores' volumes."""
    try:
        return _secret(cluster, place, services.SECRET)
    except KubectlError:
        made = {name: secrets.token_hex(16) for name in services.CREDENTIALS}
        document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": services.SECRET}, "stringData": made}
        cluster.apply(document, namespace=place.namespace)
        return made


def _secret(cluster: Cluster, place: Place, name: str) -> dict[str, str]:
    data: dict[str, str] = cluster.get("secret", name, f"--namespace={place.namespace}")["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def values(
    images: Mapping[str, Image], passwords: Mapping[str, str], node_address: str, place: Place
) -> dict[str, Any]:
    """Return the values of the chart for an evaluation."""
    database = f"postgres.{place.namespace}.svc:5432/carrel"
    return {
        "images": {
            name: {"repository": f"localhost/carrel-{name}", "tag": "dev"} for name in ("gateway", "operator", "kernel")
        },
        "sessions": {"namespace": {"name": place.sessions}, "defaultClass": {"name": place.session_class}},
        "gateway": {
            "podAnnotations": {"carrel.dev/image": images["gateway"].digest},  # the tag stays: a new image is a rollout
            "service": {"type": "NodePort", "nodePort": place.gateway_port},
            "settings": {
                "storage_type": "s3",
                "s3_bucket": services.BUCKET,
                "s3_endpoint": f"http://objects.{place.namespace}.svc:{services.OBJECTS_PORT}",
                "s3_public_endpoint": f"http://{node_address}:{place.objects_port}",
            },
            "secrets": {
                "databaseUrl": f"postgresql://carrel_gateway:{passwords['gateway-password']}@{database}",
                "migrationDatabaseUrl": f"postgresql://carrel_migrator:{passwords['migrator-password']}@{database}",
                "redisUrl": f"redis://:{passwords['redis-password']}@redis.{place.namespace}.svc:6379/0",
                "s3AccessKey": passwords["s3-access-key"],
                "s3SecretKey": passwords["s3-secret-key"],
            },
        },
        "operator": {"podAnnotations": {"carrel.dev/image": images["operator"].digest}},
    }


def helm(cluster: Cluster, place: Place, *arguments: str) -> str:
    """Return what Helm prints.

    Raises
    ------
    HelmError
        It failed.
    """
    where = (f"--kubeconfig={cluster.kubeconfig}", f"--namespace={place.namespace}")
    command = [str(ensure("helm")), *arguments, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * HELM_SECONDS)
    if done.returncode:
        raise HelmError(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def remove(cluster: Cluster, place: Place = Place(), *, definitions: bool = True) -> None:
    """Take what `up` made away from a cluster that stays; `definitions`: also those of the custom resources."""
    try:
        helm(cluster, place, "uninstall", RELEASE, "--wait", "--ignore-not-found")
    finally:
        cluster.kubectl("delete", "namespace", place.namespace, place.sessions, "--ignore-not-found")
        if definitions:
            cluster.kubectl("delete", "customresourcedefinition", *DEFINITIONS, "--ignore-not-found")
        else:
            cluster.kubectl("delete", "sessionclass", place.session_class, "--ignore-not-found")


def down() -> None:
    """Take away what `up` made."""
    given = named.find()
    if isinstance(given, Cluster):
        remove(given)
    elif not choice.delete():
        _say("there is no cluster of Carrel's on this machine")


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
  kubectl get agentsessions,pods --namespace {Place().sessions}

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
