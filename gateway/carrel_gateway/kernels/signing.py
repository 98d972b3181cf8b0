"""The gateway's key for calls to kernel hosts: read from the file of the settings, or made once in the data folder.

On a cluster the key is a mounted secret. The embedded product keeps its own, so that a gateway that starts again can
talk to the hosts that outlived it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from carrel_gateway.errors import Unavailable
from carrel_gateway.settings import Settings
from carrel_wire.tokens import ALL_SCOPES, KeySet, PublicKey, Signer, generate_private_key, public_key_of

KEY_FILE = Path("keys") / "kernel-hosts.pem"
"""Within the data folder."""


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The signer of this gateway, and the key set that its local hosts trust."""

    signer: Signer
    key_set: KeySet


def load_host_keys(settings: Settings) -> HostKeys:
    """Return the gateway's key pair; blocking, called once at start.

    Raises
    ------
    Unavailable
        The key file cannot be read or is no Ed25519 key.
    """
    path = settings.kernel_private_key_file
    try:
        pem = path.read_text() if path else _own(settings.data_dir / KEY_FILE)
        signer = Signer(settings.kernel_key_id, pem)
        public = public_key_of(pem)
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(
            "The key for calls to kernel hosts cannot be used: it must be a readable Ed25519 key in PKCS #8 PEM. "
            "Check CARREL_KERNEL_PRIVATE_KEY_FILE."
        ) from error
    return HostKeys(signer, KeySet([PublicKey(settings.kernel_key_id, public, sorted(ALL_SCOPES))]))


def _own(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(generate_private_key())
    return path.read_text()
