"""`carrel doctor` against real servers: each check finds what is missing, says how to get it, and is content else.

Plan: Python, packages, folders, ports and keys of this machine; Postgres without a schema, without a server and without
the role's rights, SQLite of a newer version and damaged; Redis away and refusing; a bucket that is not there, a key
that is wrong, a store that is away; models without a key; the cluster's rights, policies and limits of processes by
answers as an API server gives them (a real one is not asked here); the command with its exit codes, and no secret in
it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio import client
from tests.support.api_over_http import listening
from tests.support.homes import home
from tests.support.servers import free_port
from typer.testing import CliRunner

from carrel_cli.main import app
from carrel_gateway.doctor import cluster, machine, servers
from carrel_gateway.doctor.findings import Missing, Unknown
from carrel_gateway.executors.cluster import Cluster
from carrel_gateway.settings import Settings
from carrel_gateway.storage.migrate import HEAD

__all__ = ["home"]
SECRET = "hidden-4711"


def lacking(check, *arguments):
    """Return what a check finds missing and how to get it."""
    with pytest.raises(Missing) as missing:
        asyncio.run(check(*arguments)) if asyncio.iscoroutinefunction(check) else check(*arguments)
    assert missing.value.advice
    return f"{missing.value.found} → {missing.value.advice}"


# this machine


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0), (2, 7, 18)])
def test_python(version):
    assert machine.python().startswith("Python 3.")
    assert "install Python 3.11 to 3.13" in lacking(machine.python, version)


def test_packages(make_settings):
    assert machine.packages(make_settings(kernel_preload=""))
    said = lacking(machine.packages, make_settings(kernel_preload="numpy,no_such.module, nor_this"))
    assert said.startswith("not installed: no_such.module, nor_this → ")
    assert said.endswith("-m pip install 'no_such' 'nor_this'")


def test_folders(tmp_path):
    assert "will be made" in machine.folder(tmp_path / "a" / "b", "CARREL_DATA_DIR")
    assert "can be written to" in machine.folder(tmp_path, "CARREL_DATA_DIR")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "or set CARREL_DATA_DIR to another one" in lacking(machine.folder, path, "CARREL_DATA_DIR")
    assert "/proc" in lacking(machine.folder, Path("/proc"), "CARREL_DATA_DIR")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_secrets_in_files(home, monkeypatch):
    assert machine.secrecy(Settings()).startswith("none")
    file = Path(".env")
    file.write_text(f"LLM_API_KEY={SECRET}\n")
    file.chmod(0o644)
    assert lacking(machine.secrecy, Settings()) == (
        "everybody on this machine can read the secrets in .env → chmod 600 .env"
    )
    file.chmod(0o640)
    assert machine.secrecy(Settings()).startswith("1 files")
    file.write_text("CARREL_LOG_LEVEL=info\n")
    file.chmod(0o644)
    assert machine.secrecy(Settings()).startswith("none")


def test_ports(make_settings, tmp_path):
    settings = make_settings(port=0, metrics_port=free_port())
    assert machine.port(settings) == "127.0.0.1:0"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        for named in ({"port": taken}, {"port": 0, "metrics_port": taken}):
            said = lacking(machine.port, make_settings(**named))
            assert said.startswith(f"cannot listen on 127.0.0.1:{taken}: Address already in use → end the program")
        (tmp_path / "data").mkdir()
        told = {"url": f"http://localhost:{taken}", "pid": 1}
        (tmp_path / "data" / "server.json").write_text(json.dumps(told))
        assert "a gateway of this data folder has it" in machine.port(make_settings(port=taken))
    assert "cannot listen on 203.0.113.1" in lacking(machine.port, make_settings(host="203.0.113.1"))


def test_keys(make_settings, tmp_path):
    assert "made" in servers.keys(make_settings())
    good = f"k1:{base64.b64encode(b'k' * 32).decode()}"
    assert servers.keys(make_settings(secret_keys=good)) == "all can be read"
    assert SECRET not in lacking(servers.keys, make_settings(secret_keys=f"k1:{SECRET}"))
    named = {"executor_type": "kubernetes", "kernel_private_key_file": tmp_path / "none.pem"}
    assert "Check CARREL_KERNEL_PRIVATE_KEY_FILE" in lacking(servers.keys, make_settings(**named))


# what it speaks to


def test_postgres(make_settings, postgres, postgres_url):
    assert asyncio.run(servers.database(make_settings(database_url=postgres_url))) == f"Postgres, schema {HEAD}"
    postgres.sql("CREATE DATABASE bare")
    said = lacking(servers.database, make_settings(database_url=postgres.url("bare")))
    assert f"schema is not there, this version needs {HEAD}" in said
    assert said.endswith("→ run: carrel db upgrade")
    postgres.sql("CREATE ROLE nobody_yet LOGIN")
    stranger = postgres.url(postgres_url.rpartition("/")[2], "nobody_yet")
    assert "GRANT" in lacking(servers.database, make_settings(database_url=stranger))
    away = f"postgresql://carrel:{SECRET}@127.0.0.1:{free_port()}/carrel"
    said = lacking(servers.database, make_settings(database_url=away))
    assert said.endswith("check CARREL_DATABASE_URL, that the server runs, and that it lets this machine in")
    assert SECRET not in said
    assert "CARREL_DATABASE_URL" in lacking(servers.database, make_settings(database_url=f"mysql://x:{SECRET}@y"))


def test_sqlite(make_settings, tmp_path):
    def database():
        return asyncio.run(servers.database(make_settings()))

    assert "will be made" in database()
    file = tmp_path / "data" / "carrel.db"
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    assert database() == f"SQLite, schema 0001, brought to {HEAD} at the next start"
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [HEAD])
    assert database() == f"SQLite, schema {HEAD}"
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "install the newer Carrel" in lacking(servers.database, make_settings())
    file.write_bytes(b"no database" * 100)
    assert "restore it from a back-up" in lacking(servers.database, make_settings())


def test_redis(make_settings, redis_url):
    assert asyncio.run(servers.redis(make_settings(redis_url=redis_url))).startswith("Redis 7")
    assert asyncio.run(servers.redis(make_settings())).startswith("none")
    port = redis_url.rpartition(":")[2]
    for url in (
        f"redis://:{SECRET}@127.0.0.1:{free_port()}",
        f"redis://nobody:{SECRET}@127.0.0.1:{port}",
        f"http://{SECRET}",
    ):
        said = lacking(servers.redis, make_settings(redis_url=url))
        assert "check CARREL_REDIS_URL" in said
        assert SECRET not in said


def test_bucket(make_settings, s3, object_store):
    assert asyncio.run(servers.objects(make_settings(**s3))) == "s3: written, read and deleted"
    assert list(object_store.opened().list("doctor")) == []
    for other in ({"s3_bucket": "other"}, {"s3_secret_key": SECRET}):
        said = lacking(servers.objects, make_settings(**{**s3, **other}))
        assert said.startswith("the s3 store cannot be written to → check CARREL_S3_BUCKET")
        assert SECRET not in said


def test_folder_of_objects(make_settings, tmp_path):
    assert "will be made" in asyncio.run(servers.objects(make_settings()))
    (tmp_path / "file").touch()
    assert "CARREL_STORAGE_PATH" in lacking(servers.objects, make_settings(storage_path=tmp_path / "file"))


def test_models(make_settings, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert asyncio.run(servers.models(make_settings())) == "demo/analyst"
    with_key = make_settings(llm_model="openai/gpt-4o", openai_api_key="k")
    assert asyncio.run(servers.models(with_key)) == "openai/gpt-4o, demo/analyst"
    said = lacking(servers.models, make_settings(models=["anthropic/c"]))
    assert said.startswith("Model anthropic/c has no key → set LLM_API_KEY (or ANTHROPIC_API_KEY)")
    assert "is not known → set LLM_MODEL to a name like openai/foo" in lacking(
        servers.models, make_settings(llm_model="foo")
    )


# the cluster


class Recorded:
    """Answers as an API server of Kubernetes gives them."""

    def __init__(self):
        self.denied: set[tuple[str, str]] = set()
        self.isolated: list[str] = []
        self.pids: dict[str, int | None] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path
        if path.endswith("/selfsubjectaccessreviews"):
            asked = (await request.json())["spec"]["resourceAttributes"]
            assert asked["namespace"] == "carrel-sessions"
            allowed = (asked["verb"], asked["resource"]) not in self.denied
            return web.json_response({"status": {"allowed": allowed}}, status=201)
        if path.endswith("/agentsessions"):
            items = [
                {"status": {"conditions": [{"type": "Isolated", "status": status, "reason": "R", "message": "seen"}]}}
                for status in self.isolated
            ]
            return web.json_response({"metadata": {}, "items": [{"metadata": {}}, *items]})
        if self.pids is None:
            return web.json_response({"message": "nodes is forbidden"}, status=403)
        if path.endswith("/nodes"):
            return web.json_response({"items": [{"metadata": {"name": name}} for name in self.pids]})
        limit = self.pids[path.split("/")[4]]
        return web.json_response({"kubeletconfig": {} if limit is None else {"podPidsLimit": limit}})


@asynccontextmanager
async def recorded(answers: Recorded):
    async with listening(answers.answer) as url:
        opened = Cluster(client.Configuration(host=url), "carrel-sessions")
        try:
            yield opened
        finally:
            await opened.aclose()


async def test_rights_of_the_account():
    answers = Recorded()
    async with recorded(answers) as opened:
        assert await cluster.rights(opened) == "all in namespace carrel-sessions"
        answers.denied = {("create", "agentsessions"), ("get", "pods")}
        with pytest.raises(Missing) as missing:
            await cluster.rights(opened)
        assert missing.value.found.endswith("the account may not: create agentsessions, get pods")
        assert "Role" in missing.value.advice
    away = Cluster(client.Configuration(host=f"http://127.0.0.1:{free_port()}"), "carrel-sessions")
    with pytest.raises(Missing, match="cannot be reached"):
        await cluster.rights(away)
    await away.aclose()


async def test_enforcement_of_policies():
    answers = Recorded()
    async with recorded(answers) as opened:
        with pytest.raises(Unknown):
            await cluster.isolation(opened)
        answers.isolated = ["Unknown", "True"]
        assert "are enforced" in await cluster.isolation(opened)
        answers.isolated.append("False")
        with pytest.raises(Missing, match=r"not enforced \(R: seen\)"):
            await cluster.isolation(opened)


async def test_limit_of_processes():
    answers = Recorded()
    async with recorded(answers) as opened:
        with pytest.raises(Unknown, match="may not look at nodes"):
            await cluster.processes(opened)
        answers.pids = {"a": 512, "b": 1024}
        assert await cluster.processes(opened) == "podPidsLimit 512 or more on all nodes"
        answers.pids = {"a": 512, "b": -1, "c": None}
        with pytest.raises(Missing, match="no podPidsLimit on b, c:"):
            await cluster.processes(opened)


# the command


def doctor(*options):
    done = CliRunner().invoke(app, ["doctor", *options])
    assert SECRET not in done.output
    return done


def test_the_command(home, monkeypatch):
    monkeypatch.setenv("CARREL_PORT", "0")
    done = doctor("--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["ok"] is True
    names = ["python", "packages", "data folder", "secrets", "port", "keys", "database", "redis", "objects", "models"]
    assert [one["check"] for one in found["checks"]] == names
    assert list(home.iterdir()) == []  # it leaves nothing behind
    monkeypatch.setenv("LLM_MODEL", "openai/gpt-4o")
    monkeypatch.setenv("CARREL_REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{free_port()}")
    monkeypatch.setenv("CARREL_EXECUTOR_TYPE", "kubernetes")
    monkeypatch.setenv("CARREL_KERNEL_PRIVATE_KEY_FILE", str(home / "none.pem"))
    monkeypatch.setenv("KUBECONFIG", str(home / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    done = doctor()
    assert done.exit_code == 1
    missing = [line.split(":")[0][3:] for line in done.stdout.splitlines() if line.startswith("✗")]
    assert missing == ["keys", "redis", "models", "cluster rights"]
    assert "   → set KUBECONFIG to a file that kubectl can use" in done.stdout


def test_settings_that_cannot_be_used_are_missing(home, monkeypatch):
    (home / "config.yaml").write_text(f"llm_api_kye: {SECRET}\nport: {SECRET}\n")
    done = doctor("--json")
    assert done.exit_code == 1
    checks = json.loads(done.stdout)["checks"]
    assert [one["status"] for one in checks] == ["ok", "missing"]
    assert "did you mean llm_api_key?" in checks[1]["found"]
    (home / "config.yaml").unlink()
    monkeypatch.setenv("CARREL_PORT", "0")
    monkeypatch.setenv("DSAGENT_DOCKER_IMAGE", "i")
    done = doctor()
    assert done.exit_code == 0
    assert "?  settings: DSAGENT_DOCKER_IMAGE has no effect" in done.stdout
