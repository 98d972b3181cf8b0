"""At most one effect per idempotency key, and the same answer for a day.

A key is claimed in a transaction of its own before the request does anything, and settled after it. So a crash between
the two leaves a claim whose lease runs out. What is done then depends on the operation: one that may be done again
(its effect has the claim's id, or is the same the second time) is done again; of any other nobody knows whether it
happened, and the key says so until it expires. Nothing is ever done twice because a key was sent twice.

It knows no route; `routes` does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import Conflict, KeyReused
from carrel_gateway.idempotency import metrics, repository
from carrel_gateway.idempotency.repository import Claim, Entry
from carrel_gateway.storage.ids import new_id

__all__ = ["Answer", "Claim", "Effect", "IdempotencyService", "fingerprint_of"]

KEEP_SECONDS: Final = 86_400.0
"""Answers are the same for a day: longer than any client goes on trying."""
LEASE_SECONDS: Final = 60.0
"""A request that goes on renews its claim three times as often."""
MAX_ANSWER_BYTES: Final = 64 * 1024
"""Larger answers are not kept: a hundred thousand keys a day must not fill the database."""
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """How the first request with a key was answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    fingerprint: str | None = None

    def require_same(self, fingerprint: str) -> None:
        """Check that a request is the one that was answered.

        Raises
        ------
        KeyReused
            It is another one.
        """
        if self.fingerprint != fingerprint:
            raise _reused()


@dataclass(slots=True)
class Effect:
    """What a request makes: its id, which is the same when the request is tried again under its key."""

    id: UUID
    again: bool = False
    """An earlier try may have made it, or a part of it."""
    fingerprint: str | None = None
    """Set by a route that reads the body itself."""

    def part(self, place: int) -> UUID:
        """Return the id of one of several things that the request makes."""
        return UUID(int=self.id.int + place)  # the low bits are random, so it stays a UUIDv7 and nobody else's


def fingerprint_of(*parts: bytes) -> str:
    """Return a digest that tells requests apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


class IdempotencyService:
    """The keys of one user."""

    def __init__(self, context: ProcessContext, principal: Principal) -> None:
        self._database = context.database
        self._gateway_id = context.gateway_id
        self._tenant_id = principal.tenant_id
        self._user_id = principal.user_id

    async def begin(self, key: str, operation: str, fingerprint: str | None, *, repeatable: bool) -> Claim | Answer:
        """Claim a key, or return the answer that its first request got.

        Parameters
        ----------
        operation
            Method and path.
        fingerprint
            Digest of query and body; none where it is known only when the body was read, and then the caller compares.
        repeatable
            Doing it again after a crash has no second effect.

        Raises
        ------
        KeyReused
            The key was used for another request.
        Conflict
            The first request is going on, or nobody knows how it ended, or its answer was not kept.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        intent = repository.Intent(operation, fingerprint, self._gateway_id, LEASE_SECONDS, KEEP_SECONDS)
        for _ in range(_TRIES):
            async with self._database.transaction(self._tenant_id) as tx:
                entry = await repository.find(tx, self._user_id, digest)
                found = self._judge(entry, operation, fingerprint, repeatable=repeatable)
                if isinstance(found, Answer):
                    metrics.KEYS.labels("replayed").inc()
                    return found
                claim = Claim(self._user_id, digest, *found)
                if entry is not None:
                    await repository.take(tx, claim, intent)
                elif not await repository.add(tx, claim, intent):
                    continue  # another request was first just now: look at what it wrote
                metrics.KEYS.labels("claimed").inc()
                return claim
        raise _going_on()

    async def answer(self, key: str, operation: str, fingerprint: str) -> Answer | None:
        """Return the answer that a request got under a key; none where it got none, or another request did."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        async with self._database.transaction(self._tenant_id) as tx:
            entry = await repository.find(tx, self._user_id, digest)
        if entry is None or entry.expired or entry.state != "done":
            return None
        return _answer_of(entry) if (entry.operation, entry.fingerprint) == (operation, fingerprint) else None

    async def finish(self, claim: Claim, answer: Answer) -> None:
        """Settle a claim with the answer that its request gets; a large body is not kept."""
        kept = len(answer.body) <= MAX_ANSWER_BYTES
        await self._settle(
            claim,
            state="done",
            status=answer.status,
            headers=answer.headers if kept else None,
            body=answer.body if kept else None,
            **({} if answer.fingerprint is None else {"fingerprint": answer.fingerprint}),
        )

    async def finish_without_answer(self, claim: Claim, status: int) -> None:
        """Settle a claim whose answer cannot be kept: a stream, or a secret that is shown once."""
        await self._settle(claim, state="done", status=status)

    async def release(self, claim: Claim) -> None:
        """Give a claim back: nothing was done, and the key is good for another try, also with another body."""
        await self._settle(claim, state="open", fingerprint=None)

    async def doubt(self, claim: Claim) -> None:
        """Say that nobody knows whether the request had its effect."""
        await self._settle(claim, state="unknown")

    async def renew(self, claim: Claim) -> None:
        """Keep a claim while its request goes on."""
        async with self._database.transaction(self._tenant_id) as tx:
            await repository.change(tx, claim, lease_until=tx.dialect.later(LEASE_SECONDS))

    async def sweep(self) -> int:
        """Remove the expired keys of the tenant, and return how many there were."""
        async with self._database.transaction(self._tenant_id) as tx:
            return await repository.remove_expired(tx)

    async def _settle(self, claim: Claim, **values: Any) -> None:
        async with self._database.transaction(self._tenant_id) as tx:
            await repository.change(tx, claim, **values)

    def _judge(
        self, entry: Entry | None, operation: str, fingerprint: str | None, *, repeatable: bool
    ) -> Answer | tuple[UUID, int]:
        """Return the answer of a key, or the effect's id and the generation to claim it with."""
        if entry is None:
            return new_id(), 1
        if entry.expired:
            return new_id(), entry.generation + 1
        if entry.operation != operation:
            raise _reused()
        if entry.state == "open":
            return entry.effect_id, entry.generation + 1
        if entry.fingerprint is not None and fingerprint is not None and entry.fingerprint != fingerprint:
            raise _reused()
        if entry.state == "done":
            return _answer_of(entry)
        if entry.state == "running" and not self._is_abandoned(entry):
            raise _going_on()
        if entry.state == "running" and repeatable:
            return entry.effect_id, entry.generation + 1
        metrics.KEYS.labels("unknown").inc()
        raise Conflict(
            "the first request with this key was cut before its outcome was known, and doing it again could do it "
            "twice; look at what is there, and send it with a new key if it is still wanted",
            code="idempotency_outcome_unknown",
        )

    def _is_abandoned(self, entry: Entry) -> bool:
        # Nobody else can have an embedded database: whoever it was, is gone.
        return entry.lapsed or (not self._database.dialect.shared and entry.owner != self._gateway_id)


def _answer_of(entry: Entry) -> Answer:
    if entry.status is None or entry.body is None:
        metrics.KEYS.labels("not_kept").inc()
        raise Conflict(
            f"the request with this key was done (status {entry.status}), and its answer was too large, or too secret, "
            "to be kept; read what it made",
            code="idempotency_answer_not_kept",
            first_status=entry.status,
        )
    return Answer(entry.status, entry.headers or {}, entry.body, entry.fingerprint)


def _reused() -> KeyReused:
    metrics.KEYS.labels("reused").inc()
    return KeyReused("this Idempotency-Key was used for another request; make a new key for each")


def _going_on() -> Conflict:
    metrics.KEYS.labels("in_progress").inc()
    return Conflict(
        "the first request with this key is going on; send it again in a moment for its answer",
        code="idempotency_in_progress",
        retry_after_seconds=1,
    )
