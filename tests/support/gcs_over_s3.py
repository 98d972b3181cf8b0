"""The XML interface of Google Cloud Storage, before an S3: what obstore says to Google, said to the S3 of the tests.

Google's interface is S3's but for the names of some headers and for who signs how. Both signatures are checked here as
Google documents them: a bearer token that the service account signed itself (RS256), and signed addresses
(GOOG4-RSA-SHA256) with their time. Everything else (conditions, ranges, parts, lists) is the S3's own doing, so it is
no proof that Google does the same.
"""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import jwt
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from tests.support.servers import ObjectStore

_KEPT: Final = ("range", "content-type", "content-disposition")
_RETURNED: Final = ("etag", "last-modified", "content-type", "content-disposition", "content-range")
HOST: Final = "storage.googleapis.com"
_ALGORITHM: Final = "GOOG4-RSA-SHA256"


class GcsOverS3:
    """The server, while it is entered; what `with` gives is its address."""

    def __init__(self, behind: ObjectStore, key: RSAPublicKey) -> None:
        handler = type("Handler", (_Handler,), {"behind": behind, "key": key})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of callers that went away."""


class _Refused(Exception):
    """The signature is none of this account's, or is too old."""


class _Handler(BaseHTTPRequestHandler):
    behind: ObjectStore
    key: RSAPublicKey
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._check()
        except _Refused as error:
            self._reply(403, {"Content-Type": "application/xml"}, f"<Error><Code>{error}</Code></Error>".encode())
            return
        self._reply(*self._forward(body))

    def __getattr__(self, name: str) -> Any:
        """Answer every method alike: the base class asks for `do_GET` and so on."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # ------------------------------------------------------------------ who asks

    def _check(self) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme:
            self._check_token(token)
        else:
            self._check_address()

    def _check_token(self, token: str) -> None:
        try:
            jwt.decode(token, self.key, algorithms=["RS256"], options={"verify_aud": False, "require": ["exp", "iss"]})
        except jwt.InvalidTokenError as error:
            raise _Refused("AuthenticationRequired") from error

    def _check_address(self) -> None:
        """Check a signed address. Source: cloud.google.com/storage/docs/authentication/canonical-requests."""
        parts = urlsplit(self.path)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = dict(pairs)
        try:
            signature = bytes.fromhex(query.pop("X-Goog-Signature"))
            made = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
            expired = made + int(query["X-Goog-Expires"]) < time.time()
            scope = query["X-Goog-Credential"].partition("/")[2]
            signed_headers = query["X-Goog-SignedHeaders"]
        except (KeyError, ValueError) as error:
            raise _Refused("AccessDenied") from error
        # Names that occur twice are a way around what was signed.
        if (query.get("X-Goog-Algorithm"), signed_headers, len(pairs)) != (_ALGORITHM, "host", len(query) + 1):
            raise _Refused("AccessDenied")
        canonical_query = "&".join(f"{quote(name, '')}={quote(value, '')}" for name, value in sorted(query.items()))
        # Like a proxy before Google, which passes requests on under Google's name: obstore signs for no other.
        named = f"host:{HOST}\n"
        request = f"{self.command}\n{parts.path}\n{canonical_query}\n{named}\n{signed_headers}\nUNSIGNED-PAYLOAD"
        text = "\n".join([_ALGORITHM, query["X-Goog-Date"], scope, hashlib.sha256(request.encode()).hexdigest()])
        try:
            self.key.verify(signature, text.encode(), PKCS1v15(), SHA256())
        except InvalidSignature as error:
            raise _Refused("SignatureDoesNotMatch") from error
        if expired:
            raise _Refused("ExpiredToken")

    # ------------------------------------------------------------------ what is asked

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        request = AWSRequest(
            method=self.command, url=self.behind.endpoint + self._target(), data=body, headers=self._translated()
        )
        S3SigV4Auth(Credentials(self.behind.access_key, self.behind.secret_key), "s3", self.behind.region).add_auth(
            request
        )
        connection = http.client.HTTPConnection(urlsplit(self.behind.endpoint).netloc, timeout=60)
        try:
            connection.request(self.command, self._target(), body, dict(request.headers.items()))
            answer = connection.getresponse()
            headers = {name.title(): value for name, value in answer.getheaders() if name.lower() in _RETURNED}
            if self.command == "HEAD" and answer.getheader("Content-Length"):
                headers["Content-Length"] = answer.getheader("Content-Length", "")
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _target(self) -> str:
        parts = urlsplit(self.path)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = "&".join(
            f"{quote(name, '')}={quote(value, '')}" for name, value in pairs if not name.startswith("X-Goog-")
        )
        path = quote(unquote(parts.path), safe="/")
        return f"{path}?{query}" if query else path

    def _translated(self) -> dict[str, str]:
        headers = {name: value for name, value in self.headers.items() if name.lower() in _KEPT}
        if self.headers.get("x-goog-if-generation-match") == "0":
            headers["If-None-Match"] = "*"
        source = self.headers.get("x-goog-copy-source")
        if source:
            headers["x-amz-copy-source"] = quote(unquote(source), safe="/")
        return headers

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name of the base class
        """Say nothing."""
