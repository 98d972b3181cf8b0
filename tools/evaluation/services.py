"""Manifests of the stores of an evaluation: one pod each, volumes of the cluster's default StorageClass.

No replicas, no backups, no encryption. All pods pass the restricted Pod Security Standard. Postgres and Redis are open
to the gateway's pods alone, the S3 server to callers too, because signed addresses lead there.
"""

from __future__ import annotations

from typing import Any, Final

IMAGE: Final = "localhost/carrel-evaluation:dev"
OBJECTS_IMAGE: Final = "localhost/carrel-objects:dev"
SECRET: Final = "carrel-evaluation"  # noqa: S105 - the name of a Secret
BUCKET: Final = "carrel"
OBJECTS_PORT: Final = 7070
USER: Final = 65532
NAMES: Final = ("postgres", "redis", "objects")
CREDENTIALS: Final = (
    "postgres-password",
    "migrator-password",
    "gateway-password",
    "redis-password",
    "s3-access-key",
    "s3-secret-key",
)
"""Keys of the Secret; letters and digits, because they stand in scripts and addresses."""

START_POSTGRES: Final = """
if [ ! -s /data/db/PG_VERSION ]; then
    rm -rf /data/new
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata=/data/new --username=postgres --pwfile=/tmp/password --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8
    rm /tmp/password
    postgres --single -D /data/new postgres > /dev/null <<END
CREATE ROLE carrel_app NOLOGIN
CREATE ROLE carrel_login NOLOGIN
CREATE ROLE carrel_worker NOLOGIN
CREATE ROLE carrel_migrator LOGIN BYPASSRLS PASSWORD '$MIGRATOR_PASSWORD'
GRANT carrel_app, carrel_login, carrel_worker TO carrel_migrator WITH ADMIN OPTION
CREATE ROLE carrel_gateway LOGIN PASSWORD '$GATEWAY_PASSWORD' IN ROLE carrel_app, carrel_login, carrel_worker
CREATE DATABASE carrel OWNER carrel_migrator
END
    echo 'host all all all scram-sha-256' >> /data/new/pg_hba.conf
    mv /data/new /data/db
fi
exec postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
START_REDIS: Final = r"""
printf 'requirepass %s\nsave ""\nappendonly no\ndir /tmp\nmaxmemory 128mb\n' "$REDIS_PASSWORD" > /tmp/redis.conf
exec redis-server /tmp/redis.conf
"""


def objects(objects_node_port: int) -> list[dict[str, Any]]:
    """Return every object, the Secret of their passwords excepted.

    Parameters
    ----------
    objects_node_port
        Port of the node on which the S3 server is reached from outside the cluster.
    """
    return [
        *_postgres(),
        *_redis(),
        *_object_store(objects_node_port),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "evaluation-stores"},
            "spec": {
                "podSelector": {
                    "matchExpressions": [{"key": "app", "operator": "In", "values": ["postgres", "redis"]}]
                },
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}]}],
            },
        },
    ]


def _postgres() -> list[dict[str, Any]]:
    container = {
        **_container("postgres", IMAGE, 5432, memory="512Mi"),
        "command": ["sh", "-euc", START_POSTGRES],
        "env": [
            _from_secret("POSTGRES_PASSWORD", "postgres-password"),
            _from_secret("MIGRATOR_PASSWORD", "migrator-password"),
            _from_secret("GATEWAY_PASSWORD", "gateway-password"),
        ],
        "readinessProbe": {
            "exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-q"]},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
    }
    return [_claim("postgres", "1Gi"), _deployment("postgres", container, claim=True), _service("postgres", 5432)]


def _redis() -> list[dict[str, Any]]:
    container = {
        **_container("redis", IMAGE, 6379, memory="256Mi"),
        "command": ["sh", "-euc", START_REDIS],
        "env": [_from_secret("REDIS_PASSWORD", "redis-password")],
    }
    return [_deployment("redis", container, claim=False), _service("redis", 6379)]


def _object_store(node_port: int) -> list[dict[str, Any]]:
    container = {
        **_container("objects", OBJECTS_IMAGE, OBJECTS_PORT, memory="512Mi"),
        "args": ["--port", f":{OBJECTS_PORT}", "--iam-dir", "/data/accounts", "posix", "/data/buckets"],
        "env": [
            _from_secret("ROOT_ACCESS_KEY", "s3-access-key"),
            _from_secret("ROOT_SECRET_KEY", "s3-secret-key"),
        ],
    }
    folders = {
        **_container("folders", IMAGE, None, memory="64Mi"),
        "command": ["mkdir", "-p", f"/data/buckets/{BUCKET}", "/data/accounts"],  # there, a bucket is a folder
    }
    deployment = _deployment("objects", container, claim=True)
    deployment["spec"]["template"]["spec"]["initContainers"] = [folders]
    service = _service("objects", OBJECTS_PORT)
    service["spec"]["type"] = "NodePort"
    service["spec"]["ports"][0]["nodePort"] = node_port
    return [_claim("objects", "2Gi"), deployment, service]


def _from_secret(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}


def _claim(name: str, size: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def _service(name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": name}]},
    }


def _container(name: str, image: str, port: int | None, *, memory: str) -> dict[str, Any]:
    listening: dict[str, Any] = {
        "ports": [{"name": name, "containerPort": port}],
        "readinessProbe": {"tcpSocket": {"port": name}, "periodSeconds": 2},
    }
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        **(listening if port else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": memory}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the same
        ],
    }


def _deployment(name: str, container: dict[str, Any], *, claim: bool) -> dict[str, Any]:
    labels = {"app": name}
    data: dict[str, Any] = {"persistentVolumeClaim": {"claimName": name}} if claim else {"emptyDir": {}}
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", **data},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "128Mi"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # two servers must never work on one volume
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
