"""What a gateway that starts owes to the sessions of the one before it: their output, read on without being asked.

Only where this gateway alone looks after the hosts (`local`). On a cluster a session is read on by whoever uses it next
or takes its run over.
"""

from __future__ import annotations

import structlog

from carrel_gateway.context import Principal, ProcessContext
from carrel_gateway.errors import CarrelError
from carrel_gateway.execution.service import ExecutionService

_log = structlog.get_logger(__name__)


async def recover_left_behind(context: ProcessContext) -> int:
    """Read on the sessions whose hosts outlived an earlier gateway; return how many were looked at."""
    sessions = await context.executor.sessions()
    for session in sessions:
        service = ExecutionService(context, Principal(session.tenant_id, session.owner_id))
        try:
            await service.recover(session.session_id)
        except CarrelError as error:
            _log.warning("session_not_recovered", session=str(session.session_id), code=error.code)
    return len(sessions)
