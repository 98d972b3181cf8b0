"""Reads the outbox of a data folder, as its owner would."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path


def mails(data_dir: Path, to: str | None = None) -> list[EmailMessage]:
    """Return the mails, oldest first; those to one address when it is named."""
    found = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in sorted((data_dir / "outbox").glob("*.eml"))
    ]
    return [mail for mail in found if to is None or mail["To"] == to]


def link_token(mail: EmailMessage, kind: str) -> str:
    """Return what is behind `#setup=`, `#reset=` or `#invite=` in a mail."""
    return re.search(rf"#{kind}=(\S+)", mail.get_content()).group(1)
