"""The only module that talks to kernel hosts: bind, reach, state.

What they answer is not trusted: small, typed, timed.
"""

from __future__ import annotations

from typing import Final, TypeVar

import aiohttp
import msgspec

from carrel_operator import metrics
from carrel_operator.errors import HostRefused, HostUnreachable
from carrel_wire.host import BindReply, BindRequest, ErrorBody, HostState, ReachOutcome, ReachReply, ReachRequest
from carrel_wire.tokens import BIND, STATE, Signer

T = TypeVar("T")

MAX_REPLY: Final = 8 * 1024 * 1024
"""Bytes; a state names up to a thousand unacknowledged executions with their code."""


class Hosts:
    """Calls under the operator's own key."""

    def __init__(self, signer: Signer, *, timeout_seconds: float) -> None:
        self._signer = signer
        self._timeout_seconds = timeout_seconds
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def bind(self, endpoint: str, request: BindRequest) -> BindReply:
        """Make the host the session's; idempotent for one session.

        Raises
        ------
        HostUnreachable, HostRefused
        """
        body = msgspec.json.encode(request)
        return await self._call("POST", endpoint, "bind", request.pod_uid, BindReply, scope=BIND, body=body)

    async def reach(self, endpoint: str, pod_uid: str, request: ReachRequest) -> ReachOutcome:
        """Have a host that is not bound try to open a connection, and return what it says became of it.

        Raises
        ------
        HostUnreachable, HostRefused
            `already_bound` once it is a session's.
        """
        body = msgspec.json.encode(request)
        longer = request.timeout_seconds
        reply = await self._call("POST", endpoint, "reach", pod_uid, ReachReply, scope=BIND, body=body, longer=longer)
        return reply.outcome

    async def state(self, endpoint: str, pod_uid: str) -> HostState:
        """Return the host's state.

        Raises
        ------
        HostUnreachable, HostRefused
        """
        return await self._call("GET", endpoint, "state", pod_uid, HostState, scope=STATE)

    async def _call(
        self,
        verb: str,
        endpoint: str,
        call: str,
        audience: str,
        reply: type[T],
        *,
        scope: str,
        body: bytes | None = None,
        longer: float = 0.0,
    ) -> T:
        token = self._signer.token(audience=audience, session_uid=None, scopes=[scope])
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds + longer)
        outcome = "unreachable"
        try:
            async with self._session.request(
                verb,
                f"http://{endpoint}/v1/{call}",
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                outcome = "refused"
                answer = _decoded(response.status, await _whole(response), reply)
            outcome = "ok"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise HostUnreachable(f"the kernel host does not answer ({type(error).__name__})") from error
        finally:
            metrics.HOST_REQUESTS.labels(call=call, outcome=outcome).inc()
        return answer


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_REPLY:
            raise HostRefused("reply_too_large", "the kernel host answered with more than 8 MiB")
    return bytes(body)


def _decoded(status: int, body: bytes, reply: type[T]) -> T:
    try:
        if status == 200:
            return msgspec.json.decode(body, type=reply)
        error = msgspec.json.decode(body, type=ErrorBody)
    except msgspec.MsgspecError as fault:
        raise HostRefused("unknown_reply", f"the kernel host answered {status} with an unknown document") from fault
    raise HostRefused(error.code[:63], error.message[:500])
