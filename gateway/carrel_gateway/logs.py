"""Structured logs: one JSON object per line, with the request's id, and without secrets.

Redaction is the second line of defence: nothing should log a secret in the first place.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, cast

import orjson
import structlog

from carrel_gateway.settings import Settings

_SECRET_NAME: Final = re.compile(r"(?i)(authorization|password|passwd|secret|token|api_?key|cookie|private_?key)")
_SECRET_VALUE: Final = re.compile(
    r"(?i)(bearer\s+)[^\s\"',]+"
    r"|(#key=|carrel\.key\.|carrel\.ticket\.)[^\s\"',]+"
    r"|\b(cr[a-z]_)[A-Za-z0-9_-]{20,}"
    r"|\b(eyJ)[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_.-]{10,}"
    r"|(#setup=|#reset=|#invite=)[^\s\"',]+"
    r"|\b(sk-)[A-Za-z0-9_-]{16,}"
    r"|(\b\w+://[^\s:/@]+:)[^\s@]+(?=@)"
    r"|(X-Amz-Signature=)[0-9a-fA-F]+"
)
REDACTED: Final = "[redacted]"


def redact(text: str) -> str:
    """Return the text with everything that looks like a credential replaced."""
    return _SECRET_VALUE.sub(
        lambda found: next(group for group in found.groups() if group is not None) + REDACTED, text
    )


def _clean(value: Any, name: str = "") -> Any:
    if _SECRET_NAME.search(name) and isinstance(value, str):
        return REDACTED
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value)
        return {str(key): _clean(item, str(key)) for key, item in items.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in cast("list[Any]", value)]
    return value


def redact_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact every field of a log event: a structlog processor."""
    for name in list(event):
        if not name.startswith("_"):
            event[name] = _clean(event[name], name)
    return event


def configure(settings: Settings) -> None:
    """Send the logs of structlog and of the standard library to stderr in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # tests configure anew
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _json_renderer
                if settings.log_format == "json"
                else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # the middleware writes that line, without query strings
    logging.getLogger("uvicorn.error").setLevel(max(root.level, logging.WARNING))
    # These write what goes to the database and to servers of mail: SQLAlchemy each statement already at INFO.
    # Alembic's plugins say at INFO that they are there.
    quieter = {
        "aiosqlite": logging.INFO,
        "aiosmtplib": logging.INFO,
        "sqlalchemy": logging.WARNING,
        "alembic.runtime.plugins": logging.WARNING,
    }
    for name, least in quieter.items():
        logging.getLogger(name).setLevel(max(root.level, least))


def _json_renderer(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(event, default=str).decode()


class RequestLog:
    """Writes the line of each request as one of another kind would be written, but by the shortest way.

    All of its fields are this program's own words and numbers; only an id that the caller gave is looked at.
    """

    def __init__(self, settings: Settings, logger: str) -> None:
        self._is_json = settings.log_format == "json"
        self._logger = logger
        self._level = logging.getLogger(logger)

    def write(self, request_id: str, *, given: bool, method: str, route: str, status: int, milliseconds: float) -> None:
        """Write a line.

        Parameters
        ----------
        given
            Whether the caller chose the id.
        """
        if not self._level.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {"method": method, "route": route, "status": status, "milliseconds": milliseconds}
        if not self._is_json:
            structlog.get_logger(self._logger).info("request", **fields)
            return
        line = {
            **fields,
            "event": "request",
            "request_id": redact(request_id) if given else request_id,
            "level": "info",
            "logger": self._logger,
            "timestamp": f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z",
        }
        sys.stderr.write(f"{orjson.dumps(line).decode()}\n")
