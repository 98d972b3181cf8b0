"""Where HEAD moves to when a question is edited or an answer is asked for anew; appends nothing itself.

HEAD is the end of the log, and moves only so: `head.moved` says after which event the conversation goes on. What came
between stays in the log, and is no part of the conversation any more. A kernel cannot go back: it is said to be stale
when it has run cells that are left behind.
"""

from __future__ import annotations

from uuid import UUID

from carrel_gateway.errors import Conflict, InvalidInput, NotFound
from carrel_gateway.history import repository
from carrel_gateway.history.events import Message
from carrel_gateway.storage.database import Transaction
from carrel_wire.log import HeadMoved


async def plan_move(tx: Transaction, session_id: UUID, message_id: UUID, *, edits: bool) -> HeadMoved:
    """Return the event with which a message is replaced; the caller holds the session's run.

    Parameters
    ----------
    edits
        The message is a question, and is replaced itself; else what was answered to it is, or the answer itself.

    Raises
    ------
    NotFound
        The session has no such message.
    Conflict
        It was replaced already, or is an answer without a question.
    InvalidInput
        It is an answer, and those cannot be edited.
    """
    message = await tx.run(repository.message(tx.tenant_id, session_id, message_id))
    if message is None:
        raise NotFound("there is no such message in this session", code="message_not_found")
    if message.superseded_seq is not None:
        raise Conflict("this message was replaced already; take one that the conversation still has", code="superseded")
    if edits and message.role != "user":
        raise InvalidInput(
            "only a question can be edited; leave `content` out to have the answer made anew", code="not_a_question"
        )
    head = message.seq - 1 if edits else (await _question_of(tx, session_id, message)).seq
    return HeadMoved(
        message_id=message_id,
        head=head,
        reason="edit" if edits else "regenerate",
        kernel_stale=await _leaves_cells(tx, session_id, head),
    )


async def _question_of(tx: Transaction, session_id: UUID, message: Message) -> Message:
    if message.role == "user":
        return message
    found = await tx.run(
        repository.conversation(tx.tenant_id, session_id, limit=1, before_seq=message.seq, role="user")
    )
    if not found or not found[0]:
        raise Conflict("this answer has no question that it could be made anew for", code="no_question")
    return found[0][0]


async def _leaves_cells(tx: Transaction, session_id: UUID, head: int) -> bool:
    """Return whether the kernel of now has run cells since that event."""
    last = await repository.last_cell(tx, session_id, after=head)
    return last is not None and await repository.latest(tx, session_id, ["kernel.changed"], after=last) is None
