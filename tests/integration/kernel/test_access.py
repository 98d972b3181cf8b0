"""Who may call what, over the whole route table of the real application, and who can look into the host.

Plan
- The table below must name every route of the application's router: a new route fails the first test, and is in all
  the others as soon as it is in the table.
- Every route with every kind of token: none, of another scheme, malformed, forged in seven ways, expired, not yet
  valid, for another host, without the scope, of another session; before bind; and, so that the matrix means something,
  the right one is let in. (Tokens themselves are tried in `tests/unit/carrel_wire/test_tokens.py`.)
- Every path with every method that it does not have.
- Keys: a key grants its own scopes at most; rotation; a broken key set leaves the last good one in force.
- A kernel of the same user cannot read memory, environment, descriptors or anything else of the host and the zygote,
  and inherits nothing of them; no process that it sees has a secret in its environment.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import sys
import time
from pathlib import Path

import jwt
import pytest
from tests.integration.kernel.host import SESSION, Host, Refused, until

from carrel_kernel.auth import KeyFile
from carrel_kernel.server import create_app
from carrel_kernel.settings import load
from carrel_kernel.supervisor import Supervisor
from carrel_wire.tokens import ALL_SCOPES, PublicKey, Signer, generate_private_key, public_key_of

SCOPES = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
    ("POST", "/v1/bind"): "bind",
    ("POST", "/v1/reach"): "bind",
    ("GET", "/v1/state"): "state",
    ("GET", "/v1/kernels"): "execute",
    ("POST", "/v1/kernels"): "execute",
    ("GET", "/v1/kernels/{kernel}"): "execute",
    ("DELETE", "/v1/kernels/{kernel}"): "execute",
    ("POST", "/v1/kernels/{kernel}/interrupt"): "execute",
    ("POST", "/v1/kernels/{kernel}/restart"): "execute",
    ("GET", "/v1/kernels/{kernel}/variables"): "execute",
    ("POST", "/v1/kernels/{kernel}/complete"): "execute",
    ("POST", "/v1/kernels/{kernel}/inspect"): "execute",
    ("POST", "/v1/kernels/{kernel}/snapshot"): "execute",
    ("POST", "/v1/kernels/{kernel}/restore"): "execute",
    ("POST", "/v1/kernels/{kernel}/seal"): "execute",
    ("DELETE", "/v1/kernels/{kernel}/seal"): "execute",
    ("GET", "/v1/kernels/{kernel}/channels"): "execute",
    ("PUT", "/v1/kernels/{kernel}/executions/{execution}"): "execute",
    ("GET", "/v1/kernels/{kernel}/executions/{execution}/events"): "execute",
    ("POST", "/v1/kernels/{kernel}/executions/{execution}/ack"): "execute",
    ("GET", "/v1/files"): "files",
    ("GET", "/v1/files/{path}"): "files",
    ("HEAD", "/v1/files/{path}"): "files",
    ("PUT", "/v1/files/{path}"): "files",
    ("DELETE", "/v1/files/{path}"): "files",
    ("POST", "/v1/snapshots/missing"): "files",
    ("GET", "/v1/snapshots/blobs/{sha256}"): "files",
    ("PUT", "/v1/snapshots/blobs/{sha256}"): "files",
    ("GET", "/v1/changes"): "files",
    ("GET", "/v1/archives"): "files",
    ("GET", "/v1/archives/{path}"): "files",
    ("PUT", "/v1/archives/{path}"): "files",
}
PROTECTED = {route: scope for route, scope in SCOPES.items() if scope}


async def test_the_table_names_every_route_of_the_router(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    settings = load(["--host-id=h", f"--keys={tmp_path / 'keys.json'}", f"--workspace={tmp_path}"], environment={})
    supervisor = Supervisor(settings, tmp_path)
    app = create_app(supervisor, KeyFile(settings.keys, "h"))
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    await supervisor.aclose()
    assert found == set(SCOPES)


def path_of(route: str) -> str:
    return route.format(kernel="none", execution="none", path="none", sha256="none")


async def answer(host: Host, method: str, route: str, token: str | None) -> tuple[int, str | None]:
    """Return status and code of what the host says; a reply to `HEAD` has no body and so no code."""
    assert host.http
    headers = {"Authorization": token if " " in token else f"Bearer {token}"} if token is not None else {}
    async with host.http.request(method, f"http://host{path_of(route)}", headers=headers, data=b"") as reply:
        body = await reply.read()
        return reply.status, json.loads(body).get("code") if reply.status >= 400 and body else None


async def check_refused(host: Host, method: str, route: str, token: str | None, status: int, code: str) -> None:
    expected = (status, None if method == "HEAD" else code)
    assert await answer(host, method, route, token) == expected, (method, route, token)


def forgeries(host: Host) -> dict[str, str]:
    other = generate_private_key()
    now = int(time.time())
    claims: dict[str, object] = {"iss": "gateway-1", "aud": host.host_id, "iat": now, "nbf": now, "exp": now + 300}
    claims |= {"scopes": sorted(ALL_SCOPES), "session": SESSION}

    def signed(key: str = host.private_key, kid: str | None = "gateway-1", **changed: object) -> str:
        fields = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        return jwt.encode(fields, key, "EdDSA", headers={"kid": kid} if kid else {})

    public = public_key_of(host.private_key)
    return {
        "empty": "",
        "another scheme": f"Basic {host.token()}",
        "nonsense": "nonsense",
        "no algorithm": jwt.encode(claims, None, "none", headers={"kid": "gateway-1"}),
        "public key as a secret": _hs256(claims, public.encode()),
        "bytes of the public key as a secret": _hs256(claims, base64.b64decode("".join(public.splitlines()[1:-1]))),
        "another key": signed(other),
        "unknown key id": signed(kid="gateway-2"),
        "no key id": signed(kid=None),
        "another issuer": signed(iss="operator-1"),
        "changed": f"{signed()[:-5]}AAAA",
        "expired": signed(iat=now - 400, nbf=now - 400, exp=now - 100),
        "not yet valid": signed(nbf=now + 200),
        "without an end": signed(exp=None),
        "another host": signed(aud="other"),
        "no host": signed(aud=None),
        "too long a life": signed(exp=now + 3600),
        "too long": "x" * 5000,
    }


def _hs256(claims: dict[str, object], secret: bytes) -> str:
    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "kid": "gateway-1", "typ": "JWT"}).encode())
    body = head + b"." + part(json.dumps(claims).encode())
    return (body + b"." + part(hmac.new(secret, body, hashlib.sha256).digest())).decode()


@pytest.mark.parametrize("bound", [True, False])
async def test_every_route_refuses_every_bad_token(unbound: Host, bound: bool) -> None:
    host = unbound
    if bound:
        await host.bind()
    bad: list[str | None] = [None, *forgeries(host).values()]
    for (method, route), scope in PROTECTED.items():
        for token in bad:
            await check_refused(host, method, route, token, 401, "unauthenticated")
        await check_refused(host, method, route, host.token(ALL_SCOPES - {scope}), 403, "scope_missing")
        await check_refused(host, method, route, host.token([]), 403, "scope_missing")


async def test_every_route_refuses_tokens_of_other_sessions(host: Host) -> None:
    for (method, route), scope in PROTECTED.items():
        await check_refused(host, method, route, host.token([scope], session="another"), 403, "wrong_session")
        sessionless = host.token([scope], session=None)
        if scope in ("bind", "state"):
            assert (await answer(host, method, route, sessionless))[0] not in (401, 403), (method, route)
        else:
            await check_refused(host, method, route, sessionless, 403, "wrong_session")


async def test_every_path_refuses_methods_that_it_does_not_have(host: Host) -> None:
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    for route in {route for _, route in SCOPES}:
        for method in (method for method in methods if (method, route) not in SCOPES):
            await check_refused(host, method, route, None, 401, "unauthenticated")
            status, _ = await answer(host, method, route, host.token())
            assert status in (404, 405), (method, route, status)


async def test_every_route_lets_the_right_token_in(host: Host) -> None:
    for (method, route), scope in PROTECTED.items():
        status, _ = await answer(host, method, route, host.token([scope]))
        assert status not in (401, 403, 405, 500), (method, route, status)


async def test_before_bind_there_is_nothing_but_state_and_bind(unbound: Host) -> None:
    for (method, route), scope in PROTECTED.items():
        token = unbound.token([scope])
        if scope == "state":
            assert await answer(unbound, method, route, token) == (200, None)
        else:
            status, code = (400, "bad_request") if scope == "bind" else (409, "unbound")
            await check_refused(unbound, method, route, token, status, code)


async def test_the_rest_needs_no_token(unbound: Host) -> None:
    for (method, route), scope in SCOPES.items():
        if scope is None:
            assert unbound.http
            async with unbound.http.request(method, f"http://host{route}") as reply:
                assert reply.status == 200
                assert await reply.read()
    for method, path, status in (("GET", "/", 401), ("GET", "/v1/unknown", 401), ("PATCH", "/v1/state", 401)):
        assert (await answer(unbound, method, path, None))[0] == status
    assert await answer(unbound, "GET", "/v1/unknown", unbound.token()) == (404, "not_found")


async def test_a_key_grants_its_own_scopes_at_most(unbound: Host) -> None:
    private = generate_private_key()
    operator = Signer("operator-1", private)
    unbound.write_keys(
        PublicKey("gateway-1", public_key_of(unbound.private_key), sorted(ALL_SCOPES)),
        PublicKey("operator-1", public_key_of(private), ["bind", "state"]),
    )
    token = operator.token(audience=unbound.host_id, session_uid=None, scopes=ALL_SCOPES)
    body = {"session_uid": SESSION, "pod_uid": unbound.host_id}
    assert (await unbound.call("POST", "/v1/bind", json=body, token=token))["already"] is False
    assert await answer(unbound, "GET", "/v1/state", token) == (200, None)
    for route in ("/v1/kernels", "/v1/files"):
        assert await answer(unbound, "GET", route, token) == (403, "scope_missing")


async def test_keys_rotate_and_a_broken_key_set_changes_nothing(host: Host) -> None:
    old = host.token(["state"])
    assert await answer(host, "GET", "/v1/state", old) == (200, None)
    (host.short / "keys.json").write_text("{ broken")
    assert await answer(host, "GET", "/v1/state", old) == (200, None)
    private = generate_private_key()
    new = Signer("gateway-2", private).token(audience=host.host_id, session_uid=SESSION, scopes=["state"])
    assert await answer(host, "GET", "/v1/state", new) == (401, "unauthenticated")
    host.write_keys(PublicKey("gateway-2", public_key_of(private), ["state"]))
    assert await answer(host, "GET", "/v1/state", new) == (200, None)
    assert await answer(host, "GET", "/v1/state", old) == (401, "unauthenticated")


async def test_bind_is_for_one_session_and_one_host(unbound: Host) -> None:
    with pytest.raises(Refused) as refused:
        await unbound.call("POST", "/v1/bind", json={"session_uid": "s", "pod_uid": "other"}, token=unbound.token())
    assert (refused.value.status, refused.value.code) == (403, "wrong_session")
    for fields, code in (
        ({"pod_uid": "other"}, "wrong_host"),
        ({"boot_id": "other"}, "wrong_host"),
        ({"env": {"a b": "1"}}, "bad_request"),
        ({"env": {"A": "\0"}}, "bad_request"),
        ({"env": {"A": "x" * 300_000}}, "bad_request"),
        ({"memory_limit_bytes": 1}, "bad_request"),
        ({"cpu_limit": 0}, "bad_request"),
        ({"unknown": 1}, "bad_request"),
    ):
        with pytest.raises(Refused) as refused:
            await unbound.bind(**fields)
        assert refused.value.code == code, fields
    boot = (await unbound.state())["boot_id"]
    reply = await unbound.bind(boot_id=boot, env={"GREETING": "hello"}, cpu_limit=1.5)
    assert reply == {"host_id": unbound.host_id, "boot_id": boot, "session_uid": SESSION, "already": False}
    assert (await unbound.bind(boot_id=boot))["already"] is True
    with pytest.raises(Refused) as refused:
        await unbound.bind(session="another")
    assert refused.value.status in (403, 409)
    text = await unbound.text("import os; print(os.environ['GREETING'], os.environ['OMP_NUM_THREADS'], os.getcwd())")
    assert text == f"hello 2 {unbound.workspace}\n"


async def test_two_binds_at_once_give_the_host_to_one_session(unbound: Host) -> None:
    replies = await asyncio.gather(*(unbound.bind(session=f"s{number}") for number in range(5)), return_exceptions=True)
    assert [isinstance(reply, Refused) for reply in replies].count(False) == 1


PROBE = """
import ctypes, json, os, pathlib, signal

libc = ctypes.CDLL(None, use_errno=True)

class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def fields(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()

def read(path):
    with open(path, "rb", buffering=0) as file:
        if path.endswith("/mem"):
            file.seek(int(fields(path.split("/")[2])[25]))  # where its code begins; 0 for those that may not know
        return file.read(16)

def looks(pid):
    own = f"/proc/{pid}/"
    for name in ("mem", "environ", "maps", "smaps", "auxv", "syscall", "stack", "io", "pagemap", "personality"):
        yield name, lambda name=name: read(own + name)
        yield f"task/{name}", lambda name=name: read(f"{own}task/{pid}/{name}")
    for name in ("fd", "map_files", "fdinfo"):
        yield name, lambda name=name: os.listdir(own + name)
    for name in ("cwd", "root", "exe"):
        yield name, lambda name=name: os.readlink(own + name)
    yield "ptrace", lambda: libc.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE
    yield "process_vm_readv", lambda: peek(pid)
    yield "pidfd_getfd", lambda: libc.syscall(438, os.pidfd_open(pid), 0, 0) >= 0

def peek(pid):
    there, here = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)  # a place that a fork has, too
    parts = Part(ctypes.addressof(here), 16), Part(ctypes.addressof(there), 16)
    return libc.process_vm_readv(pid, ctypes.byref(parts[0]), 1, ctypes.byref(parts[1]), 1, 0) > 0

def seen(pid):
    found = []
    for name, look in looks(pid):
        try:
            if look():
                found.append(name)
        except OSError:
            pass
    return found

def is_zygote(pid):
    if fields(pid)[1] != b"%d" % host:
        return False
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"zygote.py" in words and len(os.listdir(f"/proc/{pid}/task")) == 1

child = os.fork()
if child == 0:
    signal.pause()
host = os.getppid()
others = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
zygotes, environments = [], {}
for pid in others:
    try:
        if is_zygote(pid):
            zygotes.append(pid)
        environments[pid] = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
    except OSError:  # it has ended, or is another user's
        pass
print(json.dumps({
    "uid": os.getuid(), "host": seen(host), "zygotes": [seen(pid) for pid in zygotes],
    "own": seen(child), "environments": environments,
}))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
NEEDED = {"mem", "environ", "maps", "auxv", "fd", "cwd", "exe", "ptrace", "process_vm_readv"}
SECRETS = re.compile(
    r"only-the-host-knows|eyJ[\w-]{10,}|-----BEGIN|\bsk-|\bAKIA[0-9A-Z]{16}|(?i:password|secret|api_?key)="
)


async def test_a_kernel_cannot_look_into_the_host_or_the_zygote(unprivileged: Host) -> None:
    """What it tries works on a process of its own, so that the trial means something."""
    host = unprivileged
    await until(lambda: "fork_server_loaded" in host.log.read_text(), what="the zygote")
    found = json.loads(await host.text(PROBE))
    assert found["uid"] != 0
    assert set(found["own"]) >= NEEDED
    assert found["host"] == []
    assert found["zygotes"] == [[]]
    assert found["environments"]
    for environment in found["environments"].values():
        assert not SECRETS.search(environment), environment


async def test_a_kernel_inherits_nothing_of_the_host(host: Host) -> None:
    text = await host.text("import os; print(dict(os.environ)); print(os.listdir('/proc/self/fd'))")
    assert "only-the-host-knows" not in text
    assert "PYTHONPATH" not in text
    assert "CARREL_KERNEL" not in text
    links = await host.text(
        "import os\nfor fd in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink(f'/proc/self/fd/{fd}'))\n    except OSError: pass"
    )
    assert "host.log" not in links
    assert "host.sock" not in links
    assert "keys.json" not in links


async def test_the_socket_is_the_owners_alone(host: Host) -> None:
    assert host.socket.stat().st_mode & 0o777 == 0o600
    runtime = next(path for path in host.short.iterdir() if path.name.startswith("carrel-"))
    assert runtime.stat().st_mode & 0o777 == 0o700


async def test_no_secret_is_logged(host: Host) -> None:
    token = host.token()
    await host.bind(env={}, memory_limit_bytes=None)
    await answer(host, "GET", "/v1/state", token + "x")
    await host.run("print('code of the cell')\n1/0")
    log = host.log.read_text()
    for secret in (token, token[:40], "code of the cell", "only-the-host-knows", "BEGIN"):
        assert secret not in log


async def test_an_orphan_ends_itself(tmp_path: Path) -> None:
    async with Host.running(tmp_path, "--orphan-timeout=4") as host:
        await host.bind()
        running = asyncio.create_task(host.outcome("import time; time.sleep(6)"))
        assert (await running).status == "ok"  # not while something runs
        assert host.process
        await until(lambda: host.process is None or host.process.returncode is not None, what="its end")
        assert host.process.returncode == 0


async def test_a_host_whose_parent_ended_while_it_started_ends_itself(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await parent.wait()
    host = Host(tmp_path, f"--parent-pid={parent.pid}")
    host.workspace.mkdir()
    host.write_keys()
    process = await host.spawn()
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    assert "ended before it was bound" in host.log.read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen=tcp:nowhere"], "must be unix:"),
        (["--keys=/nowhere/keys.json"], "No such file"),
        (["--orphan-timeout=-1"], "must not be negative"),
        (["--max-queue=0"], "must be at least 1"),
        (["--unknown=1"], "unrecognized arguments"),
    ],
)
async def test_a_host_that_cannot_start_says_why(tmp_path: Path, flags: list[str], message: str) -> None:
    host = Host(tmp_path, *flags)
    host.workspace.mkdir()
    host.write_keys(PublicKey("gateway-1", public_key_of(host.private_key), ["state"]))
    with pytest.raises(AssertionError):
        await host.start()
    assert await host.stop() == 2
    assert message in host.log.read_text()
