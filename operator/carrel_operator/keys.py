"""The operator's own signing key, and the public keys that kernel hosts are to trust. Reads files, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from carrel_operator.errors import ConfigurationError
from carrel_operator.settings import Settings
from carrel_wire.tokens import ALL_SCOPES, BIND, STATE, KeySet, PublicKey, Signer, public_key_of


class FurtherKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the file of further keys."""

    kid: str
    pem: str


@dataclass(frozen=True)
class OwnKey:
    """The operator's key as it was read once: what is published always fits what signs."""

    signer: Signer
    public_pem: str


def own_key(settings: Settings) -> OwnKey:
    """Return the operator's key; one that is renewed in the file comes into force with the next start.

    Raises
    ------
    ConfigurationError
        The file is missing or holds no Ed25519 private key.
    """
    path = settings.operator_private_key_file
    text = _text(path)
    try:
        return OwnKey(Signer(settings.operator_key_id, text), public_key_of(text))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} must hold an Ed25519 private key in PKCS #8 PEM") from error


def trusted_keys(settings: Settings, own: OwnKey) -> KeySet:
    """Return what kernel hosts trust: the gateway's keys for everything, the operator's for bind and state alone.

    Raises
    ------
    ConfigurationError
        A file is missing or wrong, or two keys have one id.
    """
    gateway = [(settings.gateway_key_id, _public(_text(settings.gateway_public_key_file), "the gateway's key"))]
    gateway += [(key.kid, _public(key.pem, f"key {key.kid!r}")) for key in _further(settings.further_keys_file)]
    keys = [PublicKey(kid=kid, pem=pem, scopes=sorted(ALL_SCOPES)) for kid, pem in gateway]
    keys.append(PublicKey(kid=own.signer.kid, pem=own.public_pem, scopes=[BIND, STATE]))
    ids = [key.kid for key in keys]
    if len(set(ids)) != len(ids):
        raise ConfigurationError(f"key ids must be different from each other, not {', '.join(ids)}")
    return KeySet(keys=keys)


def _further(path: Path | None) -> list[FurtherKey]:
    if path is None:
        return []
    try:
        return msgspec.json.decode(_text(path), type=list[FurtherKey])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f'{path} must be a JSON list of {{"kid": …, "pem": …}}: {error}') from error


def _public(pem: str, what: str) -> str:
    """Return the public key of a key or certificate as SubjectPublicKeyInfo."""
    try:
        if "BEGIN CERTIFICATE" in pem:
            key = x509.load_pem_x509_certificate(pem.encode()).public_key()
        else:
            key = serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ConfigurationError(f"{what} must be a public key or a certificate in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{what} must be an Ed25519 key")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
