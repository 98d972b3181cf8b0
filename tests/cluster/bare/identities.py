"""Certificates and kubeconfigs of the bare-host cluster: one authority, one bearer token per component."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Final

from tests.cluster.bare.layout import API, NODE, NODE_IP, SERVICE_CIDR
from tests.cluster.bare.shell import run, write

GROUP_OF: Final = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    f"system:node:{NODE}": "system:nodes",
}
"""User → group; each gets a token and a kubeconfig of its own."""
DAYS: Final = "3650"
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_certificates(pki: Path) -> None:
    """Make the authority, the serving certificates of API server and kubelet, and the key of service accounts."""
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    run("openssl", "req", "-x509", *_NEW_KEY, "-days", DAYS, "-subj", "/CN=hostcluster-ca",
        "-keyout", pki / "ca.key", "-out", pki / "ca.crt")  # fmt: skip
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", NODE]
    addresses = ["127.0.0.1", NODE_IP, str(SERVICE_CIDR[1])]
    alternatives = ",".join([*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)])
    _make_certificate(pki, "apiserver", "/CN=kube-apiserver", f"subjectAltName={alternatives}")
    _make_certificate(
        pki, "kubelet", f"/CN=system:node:{NODE}/O=system:nodes", f"subjectAltName=DNS:{NODE},IP:{NODE_IP}"
    )
    _make_certificate(
        pki, "kubelet-client", "/CN=apiserver-kubelet-client/O=system:masters", "extendedKeyUsage=clientAuth"
    )
    run("openssl", "genrsa", "-out", pki / "sa.key", "2048")
    run("openssl", "rsa", "-in", pki / "sa.key", "-pubout", "-out", pki / "sa.pub")


def _make_certificate(pki: Path, name: str, subject: str, extension: str) -> None:
    request, extensions = pki / f"{name}.csr", write(pki / f"{name}.ext", extension)
    run("openssl", "req", *_NEW_KEY, "-subj", subject, "-keyout", pki / f"{name}.key", "-out", request)
    run("openssl", "x509", "-req", "-in", request, "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-CAcreateserial",
        "-days", DAYS, "-extfile", extensions, "-out", pki / f"{name}.crt")  # fmt: skip


def make_kubeconfigs(folder: Path, authority: Path) -> None:
    """Write a kubeconfig per user, and the token file that the API server reads."""
    token_of = {user: secrets.token_hex(16) for user in GROUP_OF}
    rows = (f'{token_of[user]},{user},{user},"{group}"\n' for user, group in GROUP_OF.items())
    write(folder / "tokens.csv", "".join(rows))
    certificate = base64.b64encode(authority.read_bytes()).decode()
    for user, token in token_of.items():
        name = "kubelet" if user.startswith("system:node:") else user.removeprefix("system:")
        cluster = {"server": API, "certificate-authority-data": certificate}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": NODE,
            "clusters": [{"name": NODE, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": user}}],
        }
        write(folder / f"{name}.conf", document)
