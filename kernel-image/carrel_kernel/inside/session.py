"""Jupyter's messages as a kernel makes and reads them: those of `jupyter_client.session`, in a fraction of its time.

An execution makes five messages whose parent is one request. What a message is, how it is signed and what is refused is
the base class's, which also does all that is not usual.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any, Final, cast

import zmq
from jupyter_client.adapter import adapt
from jupyter_client.jsonutil import ISO8601_PAT, extract_dates
from jupyter_client.session import DELIM, DONE, Session
from zmq.eventloop.zmqstream import ZMQStream

from carrel_kernel.inside import packing

_EMPTY: Final = b"{}"
_UTC_ENDINGS: Final = ("Z", "+00:00")
_OFFSET: Final = len(_UTC_ENDINGS[1])
_PARTS: Final = 5
"""Signature, header, parent header, metadata and content."""
_T: Final = len("2000-01-01")


class KernelSession(Session):
    """Packs with `packing`, and the header of a request once for all messages that follow from it."""

    _last: tuple[dict[str, Any], bytes] = ({}, _EMPTY)
    """A parent header and what it is packed as; one value, for threads send, too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"pack": packing.pack, **kwargs})

    def send(
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
    ) -> Any:
        """Send a message; what goes to another thread, and has no buffers, in a quicker way."""
        given = cast("dict[str, Any]", msg_or_type) if isinstance(msg_or_type, dict) else {}
        if (
            buffers
            or given.get("buffers")
            or not (given or isinstance(msg_or_type, str))
            or stream is None
            or isinstance(stream, (zmq.Socket, ZMQStream))
            or os.getpid() != self.pid  # refused, or not
            or self.adapt_version
            or self.debug
        ):
            return cast("Any", super()).send(
                stream, msg_or_type, content, parent, ident, buffers, track, header, metadata
            )
        message = given or self.msg(cast("str", msg_or_type), content, parent, header, metadata)
        frames = self.serialize(message, ident)
        stream.send_multipart(frames, copy=max(map(len, frames)) < self.copy_threshold)
        message["tracker"] = DONE
        return message

    def serialize(self, msg: dict[str, Any], ident: list[bytes] | bytes | None = None) -> list[bytes]:
        """Return the frames of a message."""
        content = msg.get("content")
        if not isinstance(content, dict):
            return super().serialize(msg, ident)
        pack = cast("Any", self).pack
        metadata = msg["metadata"]
        parts: list[bytes] = [
            _packed(msg["header"], pack),
            self._packed_once(msg["parent_header"], pack),
            pack(metadata) if metadata else _EMPTY,
            pack(content),
        ]
        idents = ident if isinstance(ident, list) else [] if ident is None else [ident]
        return [*idents, DELIM, self.sign(parts), *parts]

    def _packed_once(self, parent: Any, pack: Any) -> bytes:
        if not parent:
            return _EMPTY
        last, packed = self._last
        if parent != last:
            packed = _packed(parent, pack)
            self._last = (dict(parent), packed)
        return packed

    def deserialize(self, msg_list: Any, content: bool = True, copy: bool = True) -> Any:
        """Return the message of signed frames; of what is not usual, or is refused, the base class's word is asked."""
        frames = msg_list[:_PARTS] if copy else [frame.bytes for frame in msg_list[:_PARTS]]
        signature = frames[0] if len(msg_list) == _PARTS else b""
        if (
            not signature
            or self.auth is None
            or self.debug
            or signature in self.digest_history
            or not compare_digest(signature, self.sign(frames[1:]))
        ):
            return super().deserialize(msg_list, content, copy)
        if content:
            self._add_digest(signature)
        unpack = cast("Any", self).unpack
        _, header, parent, metadata, packed = frames
        dated = _dated(unpack(header))
        message: dict[str, Any] = {
            "header": dated,
            "msg_id": dated["msg_id"],
            "msg_type": dated["msg_type"],
            "parent_header": {} if parent == _EMPTY else _dated(unpack(parent)),
            "metadata": {} if metadata == _EMPTY else unpack(metadata),
            "content": unpack(packed) if content else packed,
            "buffers": [],
        }
        version = dated.get("version")
        usual = type(version) is str and version.startswith("5.") and "date" in dated
        return message if usual else adapt(message)


def _packed(header: dict[str, Any], pack: Any) -> bytes:
    date = header.get("date")
    if type(date) is datetime and date.tzinfo is UTC:  # as `json_default` writes it
        header = {**header, "date": f"{date.isoformat()[:-_OFFSET]}Z"}
    return pack(header)


def _dated(header: Any) -> Any:
    """Return a header with its dates as such, which is what `extract_dates` does."""
    if not isinstance(header, dict):
        return extract_dates(header)
    return {key: _date(value) for key, value in cast("dict[str, Any]", header).items()}


def _date(value: Any) -> Any:
    if type(value) is str:
        if value[_T : _T + 1] != "T":
            return value
        if value.endswith(_UTC_ENDINGS) and ISO8601_PAT.match(value):
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                pass
    return extract_dates(value)
