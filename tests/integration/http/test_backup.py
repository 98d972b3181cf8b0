"""The blocks of `docs/how-to/back-up.md`, as they stand, and a gateway on what they restored (threat 39).

Plan: an embedded folder, and Postgres with an S3, are saved and restored, the database into a server that has none of
the roles; every row has the same hash, policies, grants and functions are the same, and the gateway's login sees no
row without a tenant; a gateway on it answers the same history, files, search and audit log, lets the same keys in,
opens the stored keys of providers, and goes on; in the dump is no key that would let anybody in.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.servers import ObjectStore, Postgres, free_port, init_postgres, s3_server, start_postgres, stop
from tests.support.serving import SALES, Gateway
from tests.support.serving import gateway as running_gateway

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "back-up.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
SAVE_FOLDER, RESTORE_FOLDER, DUMP, RESTORE = BLOCKS
PROVIDER_KEY = "canary-of-a-providers-key-0123456789"
CODE = "needle = 6 * 7; print(needle); open('made.txt', 'w').write('made')"
SAME = [
    f"SELECT {columns} ORDER BY 1, 2"
    for columns in (
        "tablename, policyname, permissive, roles, cmd, qual, with_check FROM pg_policies",
        "relname, relrowsecurity, relforcerowsecurity FROM pg_class WHERE relnamespace = 'public'::regnamespace",
        "relname, split_part(acl::text, '/', 1) FROM pg_class, unnest(relacl) AS acl WHERE acl::text ~ '^carrel_[alw]'",
        (
            "proname, prosecdef, proconfig, prosrc, has_function_privilege('carrel_app', oid, 'EXECUTE') FROM pg_proc"
            " WHERE pronamespace = 'public'::regnamespace"
        ),
        "tgname, tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "indexname, tablename FROM pg_indexes WHERE schemaname = 'public'",
        "conrelid::regclass::text, conname, contype FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
    )
]
"""What a database is beside its rows."""


def run(block: str, folder: Path, *, path: str = "", **variables: str) -> None:
    """Run a block of the page."""
    search = os.pathsep.join(filter(None, [path, os.environ["PATH"]]))
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block],
        cwd=folder,
        env={"PATH": search, "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


def fill(running: Gateway) -> tuple[str, str, str]:
    """Make a session with a history and files; return its path, a key, and the token of a link."""
    with running.client() as api:
        session = f"/api/sessions/{api.post('/api/sessions', json={'title': 'Kept'}).json()['id']}"
        stored = api.post(f"{session}/files", files={"file": ("sales.csv", SALES.encode(), "text/csv")})
        assert stored.status_code == 201
        assert api.post(f"{session}/kernel/execute", json={"code": CODE}).json()["status"] == "ok"
        assert api.put("/api/provider-keys/openai", json={"key": PROVIDER_KEY}).is_success
        key = api.post("/api/keys", json={"name": "kept"}).json()["key"]
        return session, key, api.post(f"{session}/share", json={}).json()["token"]


def told(running: Gateway, session: str, key: str) -> dict[str, Any]:
    """Return all that a gateway tells of it."""
    with running.client(key=key) as api:
        found = {
            path: api.get(path)
            for path in (
                session,
                f"{session}/export",
                f"{session}/messages",
                f"{session}/notebook",
                f"{session}/files/sales.csv",
                "/api/search?q=needle",
                "/api/provider-keys",
                "/api/audit?limit=200",
                "/api/users",
            )
        }
        (made,) = api.get(f"{session}/artifacts?category=artifacts").json()["items"]
        found["made"] = api.get(f"{session}/artifacts/{made['name']}")
        assert {answer.status_code for answer in found.values()} == {200}
        assert (found["made"].text, found[f"{session}/files/sales.csv"].text) == ("made", SALES)
        verdict = api.get("/api/audit/verify").json()
        assert verdict["valid"], verdict
        return {path: answer.content for path, answer in found.items()} | {"audit": verdict}


def goes_on(running: Gateway, session: str, key: str) -> None:
    with running.client(key=key) as api:
        done = api.post(f"{session}/kernel/execute", json={"code": "print('on')"}).json()
        assert done["status"] == "ok", done


def test_an_embedded_folder(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "data") as running:
        session, key, _ = fill(running)
        before = told(running, session, key)
    run(SAVE_FOLDER, tmp_path, CARREL_DATA_DIR=str(tmp_path / "data"))
    shutil.rmtree(tmp_path / "data")
    run(RESTORE_FOLDER, tmp_path, NEW_DATA_DIR=str(tmp_path / "new"))
    with running_gateway(tmp_path / "new") as running:
        assert told(running, session, key) == before
        goes_on(running, session, running.key)


@pytest.fixture
def other_postgres() -> Iterator[Postgres]:
    """A server in which nobody ever made anything."""
    data = Path(tempfile.mkdtemp(prefix="carrel-restored-"))
    binaries, port = init_postgres(data), free_port()
    process = start_postgres(data, binaries, port, ("fsync=off", "full_page_writes=off", "shared_buffers=32MB"))
    try:
        yield Postgres(port, binaries)
    finally:
        stop(process)
        shutil.rmtree(data)


def settings_of(url: str, store: ObjectStore) -> dict[str, str]:
    return {
        "CARREL_DATABASE_URL": url,
        "CARREL_STORAGE_TYPE": "s3",
        "CARREL_S3_BUCKET": store.bucket,
        "CARREL_S3_ACCESS_KEY": store.access_key,
        "CARREL_S3_SECRET_KEY": store.secret_key,
        "CARREL_S3_ENDPOINT": store.endpoint,
        "CARREL_SECRET_KEYS": f"k1:{base64.b64encode(b'k' * 32).decode()}",
        "CARREL_API_KEY": "crl_canary-of-the-installation-0123456789",
    }


def copy_bucket(source: ObjectStore, target: ObjectStore) -> int:
    """Copy every object with its type and disposition, as the programs that the page names do."""
    one, other, count = source.opened(), target.opened(), 0
    for page in one.list():
        for item in page:
            found = one.get(item["path"])
            other.put(item["path"], found.bytes(), attributes=found.attributes)
            count += 1
    return count


def rows_of(server: Postgres, database: str) -> dict[str, str]:
    """Return the hash of the rows of each table."""
    tables = server.sql(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database=database
    ).split()
    hashed = "SELECT count(*) || ' ' || md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '')) FROM {} AS t"
    return {table: server.sql(hashed.format(table), database=database) for table in tables}


def test_postgres_and_an_object_store(
    tmp_path: Path, postgres: Postgres, postgres_database: str, other_postgres: Postgres, object_store: ObjectStore
) -> None:
    with s3_server(tmp_path / "s3") as other_store:
        url = postgres.url(postgres_database, "gateway")
        with running_gateway(tmp_path / "one", **settings_of(url, object_store)) as running:
            session, key, link = fill(running)
            before = told(running, session, key)
        tools = {"path": postgres.bin, "DATABASE_URL": postgres.url(postgres_database)}
        run(DUMP, tmp_path, **tools)
        assert copy_bucket(object_store, other_store) >= 2
        kept = rows_of(postgres, postgres_database)
        shape = [postgres.sql(look, database=postgres_database) for look in SAME]
        tools |= {"NEW_SERVER_URL": other_postgres.url()}
        run(RESTORE, tmp_path, **tools, NEW_DATABASE_URL=other_postgres.url("carrel", "carrel_migrator"))
        assert rows_of(other_postgres, "carrel") == kept
        assert [other_postgres.sql(look, database="carrel") for look in SAME] == shape
        assert int(kept["events_p00"].split()[0]) + int(kept["api_keys"].split()[0]) > 0
        new_url = other_postgres.url("carrel", "carrel_gateway")
        with running_gateway(tmp_path / "two", **settings_of(new_url, other_store)) as running:
            assert told(running, session, key) == before
            shown = httpx.get(f"{running.url}/api/shared/{link}")
            assert shown.json()["title"] == "Kept"
            goes_on(running, session, key)
    nobodys = other_postgres.sql("SET ROLE carrel_app", "SELECT count(*) FROM sessions", database="carrel")
    assert nobodys == "0"
    dumped = subprocess.run(
        [f"{postgres.bin}/pg_restore", "-f", "-", "carrel.dump"], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert CODE.encode() in dumped, "what people wrote is there as it is"
    for secret in (key, key[4:], link, link[4:], PROVIDER_KEY, "canary-of-the-installation"):
        assert secret.encode() not in dumped
