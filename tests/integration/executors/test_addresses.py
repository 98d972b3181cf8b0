"""Where the gateway's calls to pods go (threat 28), over real sockets.

Plan: a table of what a status, a pod and its address may be, true and forged: only the session's own pod in its own
network gives an address, and the port is fixed; a forged pod name asks the API server for nothing else; neither the API
server nor a kernel host can send a call elsewhere; nothing that a caller of the gateway sends (headers, queries, hosts,
names) changes where a call goes or what headers it has.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import httpx
import pytest
from aiohttp import web
from kubernetes.aio import client
from tests.support.api_over_http import Sink, api_over_http, listening, sink
from tests.support.api_server import ApiServer

from carrel_api.names import COMPONENT_LABEL, KERNEL_COMPONENT, KERNEL_PORT, SESSION_LABEL
from carrel_gateway import opening
from carrel_gateway.errors import CarrelError
from carrel_gateway.executors.base import HostEndpoint, SessionRef
from carrel_gateway.executors.cluster import Cluster
from carrel_gateway.executors.kubernetes import KubernetesExecutor, hash_of
from carrel_gateway.kernels.connection import HostConnection
from carrel_gateway.main import create_app
from carrel_gateway.settings import Settings
from carrel_wire.host import CompleteRequest, ExecuteRequest
from carrel_wire.tokens import Signer, generate_private_key

NAMESPACE = "carrel-sessions"
POD_UID = str(uuid4())
ADDRESS = "10.244.0.9"
FORGED: dict[str, dict[str, Any]] = {
    "another UID": {"pod_uid": str(uuid4())},
    "a pod of another session": {"labels": {SESSION_LABEL: hash_of("another")}},
    "a pod that is no kernel": {"labels": {COMPONENT_LABEL: "operator"}},
    "a pod that is being deleted": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
    "a pod in its node's network": {"spec": {"hostNetwork": True}},
    "no such pod": {"pod_name": "gone"},
    "a pod of another namespace": {"pod_name": "../../kube-system/pods/kernel"},
    "a way out of the pods": {"pod_name": "../services/http:other:80/proxy/"},
    "an encoded way out": {"pod_name": "%2e%2e/services/x/proxy"},
    "a query in the name": {"pod_name": "kernel?watch=1"},
    "dots for a name": {"pod_name": ".."},
    "no address": {"address": ""},
    "a name for an address": {"address": "metadata.google.internal"},
    "an address with a port": {"address": "10.244.0.9:80"},
    "an address with an account": {"address": "user@10.244.0.9"},
    "an address with a path": {"address": "10.244.0.9/v1"},
    "the metadata service": {"address": "169.254.169.254"},
    "the metadata service of IPv6": {"address": "fd00:ec2::254"},
    "the metadata service, mapped": {"address": "::ffff:169.254.169.254"},
    "the metadata service as a number": {"address": "2852039166"},
    "the metadata service in octal": {"address": "0251.0376.0251.0376"},
    "the gateway itself": {"address": "127.0.0.1"},
    "the gateway itself, IPv6": {"address": "::1"},
    "the gateway itself, mapped": {"address": "::ffff:127.0.0.1"},
    "nobody": {"address": "0.0.0.0"},
    "a group": {"address": "224.0.0.1"},
    "one link": {"address": "fe80::1%eth0"},
}


def objects(server: ApiServer, session: SessionRef, case: dict[str, Any]) -> None:
    """Store an AgentSession that is Ready, and its pod, with what the case changes."""
    name = str(session.session_id)
    spec = {"tenant": str(session.tenant_id), "owner": str(session.owner_id)}
    condition = {"type": "Ready", "status": "True", "reason": "Bound", "message": "", "observedGeneration": 1}
    made = server.put(
        {
            "apiVersion": "carrel.dev/v1alpha1",
            "kind": "AgentSession",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": name},
            "spec": spec,
            "status": {
                "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "podName": case.get("pod_name", "kernel"),
                "podUID": case.get("pod_uid", POD_UID),
                "endpoint": "169.254.169.254:80",
            },
        }
    )
    labels = {COMPONENT_LABEL: KERNEL_COMPONENT, SESSION_LABEL: hash_of(made["metadata"]["uid"])}
    server.put(
        {
            "kind": "Pod",
            "metadata": {
                "name": "kernel",
                "namespace": NAMESPACE,
                "uid": POD_UID,
                "labels": {**labels, **case.get("labels", {})},
                **{key: value for key, value in case.items() if key == "deletionTimestamp"},
            },
            "spec": case.get("spec", {}),
            "status": {"podIP": case.get("address", ADDRESS)},
        }
    )


def executor_of(url: str, folder) -> KubernetesExecutor:
    settings = Settings(
        _env_file=None, data_dir=folder, executor_type="kubernetes", kernel_private_key_file=folder / "key.pem"
    )
    return KubernetesExecutor(settings, Cluster(client.Configuration(host=url), NAMESPACE))


async def found(case: dict[str, Any], folder) -> tuple[HostEndpoint | None, list[str], SessionRef]:
    session = SessionRef(tenant_id=uuid4(), session_id=uuid4(), owner_id=uuid4())
    server = ApiServer()
    objects(server, session, case)
    async with api_over_http(server) as api:
        executor = executor_of(api.url, folder)
        try:
            return await executor.find(session), api.asked, session
        finally:
            await executor.aclose()


@pytest.mark.parametrize(
    ("address", "host"), [(ADDRESS, ADDRESS), ("fd00:10:244::9", "[fd00:10:244::9]"), ("::ffff:10.244.0.9", ADDRESS)]
)
async def test_a_pod_that_confirms_the_status_is_called_on_the_fixed_port(tmp_path, address, host):
    endpoint, _, session = await found({"address": address}, tmp_path)
    assert endpoint == HostEndpoint(
        session_uid=str(session.session_id), audience=POD_UID, url=f"http://{host}:{KERNEL_PORT}"
    )


@pytest.mark.parametrize("case", FORGED.values(), ids=[name.replace(" ", "-") for name in FORGED])
async def test_what_is_forged_gives_no_address(tmp_path, case):
    endpoint, asked, session = await found(case, tmp_path)
    assert endpoint is None
    base = f"/apis/carrel.dev/v1alpha1/namespaces/{NAMESPACE}/agentsessions/{session.session_id}"
    pods = {f"/api/v1/namespaces/{NAMESPACE}/pods/{name}" for name in ("kernel", "gone")}
    assert set(asked) <= {base, *pods}, "a forged name leads to other resources"


async def test_the_api_server_sends_the_gateways_token_nowhere(tmp_path):
    session = SessionRef(tenant_id=uuid4(), session_id=uuid4(), owner_id=uuid4())
    async with sink() as elsewhere, api_over_http(ApiServer()) as api:
        api.elsewhere = f"{elsewhere.url}/metadata"
        executor = executor_of(api.url, tmp_path)
        with pytest.raises(CarrelError, match="status 307"):
            await executor.find(session)
        await executor.aclose()
        assert elsewhere.seen == []


CALLS = ["state", "execute", "changes", "get_file", "put_file", "snapshot_blob", "complete"]


async def call(host: HostConnection, name: str) -> None:
    async def content():
        yield b"x"

    async def drain(stream) -> None:
        async with aclosing(stream) as items:
            async for _ in items:
                pass

    match name:
        case "execute":
            await drain(host.execute(uuid4(), ExecuteRequest(code="1")))
        case "get_file":
            await drain(host.get_file("a.csv"))
        case "put_file":
            await host.put_file("a.csv", content())
        case "snapshot_blob":
            await drain(host.get_blob("0" * 64))
        case "complete":
            await host.complete(CompleteRequest(code="a", cursor_pos=1))
        case _:
            await getattr(host, name)()


@pytest.mark.parametrize("status", [301, 303, 307])
@pytest.mark.parametrize("name", CALLS)
async def test_a_kernel_host_cannot_send_a_call_elsewhere(name, status):
    async with sink() as elsewhere:

        async def send_away(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{elsewhere.url}/v1/state"})

        async with listening(send_away) as url, aiohttp.ClientSession() as http:
            signer = Signer("k", generate_private_key())
            host = HostConnection(HostEndpoint(session_uid="s", audience="a", url=url), signer, http)
            with pytest.raises(CarrelError) as refused:
                await call(host, name)
            await host.aclose()
            assert refused.value.status == 503
        assert elsewhere.seen == []


class FixedExecutor:
    """Every session has its host at one address."""

    name = "kubernetes"
    binds = False

    def __init__(self, url: str) -> None:
        self._url = url

    async def find(self, session: SessionRef) -> HostEndpoint:
        return HostEndpoint(session_uid=str(session.session_id), audience="pod", url=self._url)

    acquire = find

    async def made_elsewhere(self, _: UUID) -> None:
        return

    def suspension_requests(self) -> None:
        return

    async def sessions(self) -> tuple[()]:
        return ()

    made_by_gateways = sessions

    async def release(self, _: SessionRef) -> None:
        return

    async def aclose(self) -> None:
        return


OF_CALLS = {"Host", "Authorization", "Accept", "Accept-Encoding", "User-Agent", "Content-Type", "Content-Length"}


async def test_nothing_that_a_caller_sends_chooses_where_a_call_goes(tmp_path, monkeypatch):
    hosts = Sink()
    async with sink() as elsewhere, listening(hosts.answer) as hosts.url:
        target = elsewhere.url.removeprefix("http://")
        address, _, port = target.partition(":")
        headers = {
            **dict.fromkeys(("X-Forwarded-Host", "X-Host", "X-Original-Host", "X-Kernel-Host"), target),
            "Forwarded": f"for={address};host={target}",
            "X-Forwarded-For": address,
            "X-Forwarded-Port": port,
            "X-Original-URL": f"{elsewhere.url}/v1/state",
            "X-Rewrite-URL": f"{elsewhere.url}/v1/state",
            "X-Sandbox-Port": port,
            "X-Sandbox-Namespace": "kube-system",
            "Proxy": elsewhere.url,
            "Cookie": f"host={target}",
        }
        query = {"host": target, "port": port, "url": elsewhere.url, "kernel": f"@{target}/", "pod": address}

        async def fixed(*_: Any) -> FixedExecutor:
            return FixedExecutor(hosts.url)

        monkeypatch.setattr(opening, "open_executor", fixed)
        monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
        settings = Settings(
            _env_file=None, data_dir=tmp_path, api_key="crl_test", checkpoint_seconds=0, wake_hold_seconds=0.3
        )
        app = create_app(settings)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as api,
        ):
            api.headers["Authorization"] = "Bearer crl_test"
            session = f"/api/sessions/{(await api.post('/api/sessions', json={})).json()['id']}"
            for method, path, body in [
                ("GET", "kernel", None),
                ("GET", "kernel/variables", None),
                ("POST", "kernel/execute", {"code": "1"}),
                ("POST", "kernel/interrupt", None),
                ("POST", "kernel/complete", {"code": "a", "cursor_pos": 1}),
                ("GET", f"files/@{target}/v1/state", None),
            ]:
                await api.request(method, f"{session}/{path}", json=body, headers=headers, params=query)
        assert elsewhere.seen == []
        assert len(hosts.seen) >= 4
        for what, sent in hosts.seen:
            assert sent["Host"] == hosts.url.removeprefix("http://")
            assert set(sent) <= OF_CALLS, what
            assert target not in f"{what}{sent}", what
