"""`carrel login` and what follows, against a served gateway with an account.

Plan: log in, see who one is, run code under the login, make a key and use it, revoke it and all others, also those
of a service account, log out; wrong passwords and a
server without a name are one line each; no password and no token is printed or left readable for others.
"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.integration.http.test_command_line import carrel
from tests.support.mailbox import link_token, mails
from tests.support.serving import gateway as running_gateway
from tests.support.serving import until

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("log-in") / "data", CARREL_REGISTRATION="open") as started:
        with started.client(key=None) as http:
            assert http.post("/api/auth/register", json={"email": EMAIL}).status_code == 202
            until(lambda: mails(started.data_dir, EMAIL))
            token = link_token(mails(started.data_dir, EMAIL)[-1], "setup")
            body = {"token": token, "name": "Ada", "password": PASSWORD}
            assert http.post("/api/auth/verify", json=body).status_code == 201
        yield started


def service_account(gateway) -> str:
    """Make a service account with a key in Ada's tenant, and return its id."""
    with gateway.client(key=None) as http:
        token = http.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD}).json()["access_token"]
    with gateway.client(key=token) as http:
        account = http.post("/api/users", json={"kind": "service", "name": "nightly"}).json()["id"]
        assert http.post("/api/keys", json={"name": "nightly", "user_id": account}).status_code == 201
    return account


def at(gateway, folder: Path, *arguments: str, **settings: str):
    named = {"CARREL_SERVER": gateway.url, "HOME": str(folder), **settings}
    return carrel(*arguments, cwd=folder, **named)


def test_a_day_with_a_login(gateway, tmp_path: Path):
    done = at(gateway, tmp_path, "login", "--email", EMAIL, CARREL_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{EMAIL}, admin of Ada at {gateway.url}\n"
    (kept,) = (tmp_path / ".carrel" / "logins").glob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert PASSWORD not in kept.read_text()
    who = at(gateway, tmp_path, "whoami")
    assert who.stdout.startswith(done.stdout), who.stderr
    assert "kernel:execute" in who.stdout
    assert at(gateway, tmp_path, "sessions", "list").returncode == 0
    made = at(gateway, tmp_path, "keys", "create", "for the night", "--scope", "profile:read", "--days", "1")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("crl_")
    by_key = at(gateway, tmp_path / "..", "whoami", CARREL_API_KEY=key)
    assert by_key.stdout.splitlines()[1] == "profile:read", by_key.stderr
    listed = at(gateway, tmp_path, "keys", "list")
    assert "for the night" in listed.stdout
    assert key not in listed.stdout
    key_id = next(line for line in listed.stdout.splitlines() if "for the night" in line).split()[0]
    assert at(gateway, tmp_path, "keys", "revoke", key_id).returncode == 0
    gone = at(gateway, tmp_path, "whoami", CARREL_API_KEY=key)
    assert gone.returncode == 1
    assert "revoked" in gone.stderr
    account = service_account(gateway)
    others = [at(gateway, tmp_path, "keys", "create", name).stdout.strip() for name in ("one", "other")]
    with gateway.client() as api:  # the administrator of the installation, of another tenant
        assert api.delete("/api/keys").json()["revoked"] == 0
    assert at(gateway, tmp_path, "keys", "revoke-all").stdout == "revoked: 2\n"
    listed = at(gateway, tmp_path, "keys", "list", "--service")
    assert listed.stdout.count(account) == 1, listed.stdout + listed.stderr
    assert at(gateway, tmp_path, "keys", "revoke-all", "--user", account).stdout == "revoked: 1\n"
    for other in others:
        with gateway.client(key=other) as api:
            assert api.get("/api/me").json()["code"] == "revoked"
    assert at(gateway, tmp_path, "logout").stdout == "logged out\n"
    assert not kept.exists()
    after = at(gateway, tmp_path, "whoami")
    assert after.returncode == 1
    assert len(after.stderr.splitlines()) == 1


def test_what_is_wrong_is_one_line(gateway, tmp_path: Path):
    wrong = at(gateway, tmp_path, "login", "--email", EMAIL, CARREL_PASSWORD="another one, also long")
    assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (1, "", 1)
    assert not list(tmp_path.rglob("*.json"))
    unnamed = carrel("login", "--email", EMAIL, cwd=tmp_path, CARREL_PASSWORD=PASSWORD)
    assert (unnamed.returncode, len(unnamed.stderr.splitlines())) == (2, 1)
    assert "--server" in unnamed.stderr
    assert at(gateway, tmp_path, "logout").stdout == f"there is no login of {gateway.url}\n"
