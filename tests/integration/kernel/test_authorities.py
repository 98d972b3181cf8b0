"""What a class gives to programs in its pods: authorities to trust and a proxy, as they reach a cell.

Plan: a TLS server on loopback with a certificate of an authority that nobody knows. Without it a cell does not trust
the server, with it the cell does, and still what the system trusts; proxies of the host's environment are the cell's. A
file without certificates keeps the host from starting, with words.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.integration.kernel.host import Host
from tests.support.certificates import certificate

PROXY = "http://proxy.example.org:3128"
TRUST = "import ssl, urllib.request\nprint(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
VARIABLES = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"]


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"trusted")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Generator[tuple[str, Path]]:
    """Address of a TLS server, and the file of its authority."""
    authority, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    with HTTPServer(("127.0.0.1", 0), Hello) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{running.server_port}/", authority
        running.shutdown()


async def test_a_cell_does_not_trust_what_nobody_named(tmp_path: Path, server: tuple[str, Path]) -> None:
    async with Host.running(tmp_path) as host:
        await host.bind()
        assert "CERTIFICATE_VERIFY_FAILED" in str(await host.run(TRUST.format(url=server[0])))


async def test_a_cell_trusts_what_the_class_names_and_what_the_system_does(
    tmp_path: Path, server: tuple[str, Path]
) -> None:
    url, authority = server
    async with Host.running(tmp_path, f"--authorities={authority}") as host:
        await host.bind()
        assert (await host.text(TRUST.format(url=url))).strip() == "trusted"
        told = await host.text(f"import os\nprint(*{{os.environ[name] for name in {VARIABLES}}})")
        [file] = told.split()
        assert authorities(file) == authorities(str(authority)) | authorities(SYSTEM)


def authorities(file: str) -> set[str]:
    """Return the serial numbers in a file; none where it is not there."""
    found = ssl.create_default_context(cafile=file).get_ca_certs() if Path(file).exists() else []
    return {str(one["serialNumber"]) for one in found}


async def test_a_cell_is_told_of_the_proxy(tmp_path: Path) -> None:
    given = {"HTTP_PROXY": PROXY, "https_proxy": PROXY, "NO_PROXY": "localhost", "no_proxy": "localhost"}
    within = ["env", *(f"{name}={value}" for name, value in given.items())]
    async with Host.running(tmp_path, within=within) as host:
        await host.bind()
        told = await host.text("import os\nprint({n: v for n, v in os.environ.items() if 'proxy' in n.lower()})")
        assert told.strip() == str(
            {name: given[name] for name in ("HTTP_PROXY", "NO_PROXY", "https_proxy", "no_proxy")}
        )


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
async def test_a_file_without_certificates_is_refused_with_words(tmp_path: Path, text: str) -> None:
    broken = tmp_path / "broken.crt"
    broken.write_text(text)
    host = Host(tmp_path, f"--authorities={broken}")
    host.workspace.mkdir(exist_ok=True)
    process = await host.spawn()
    assert await process.wait() == 2
    assert "must hold certificates as PEM" in host.log.read_text()
