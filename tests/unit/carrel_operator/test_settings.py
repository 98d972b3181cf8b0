"""Settings and keys: what the chart sets is understood, and each mistake is told with its name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from carrel_operator.errors import ConfigurationError
from carrel_operator.keys import own_key, trusted_keys
from carrel_operator.settings import Settings, labels_of, load
from carrel_wire.tokens import ALL_SCOPES, BIND, STATE, TokenError, Verifier, generate_private_key, public_key_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    own, gateway = generate_private_key(), generate_private_key()
    paths = {name: tmp_path / name for name in ("own", "gateway", "certificate", "further")}
    paths["own"].write_text(own)
    paths["gateway"].write_text(public_key_of(gateway))
    paths["certificate"].write_text(certificate_of(gateway))
    return paths


def certificate_of(private: str) -> str:
    key = serialization.load_pem_private_key(private.encode(), None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1,
        not_valid_before=begin, not_valid_after=begin + timedelta(days=1),
    ).sign(key, None)  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()


def settings_of(files: dict[str, Path], **more: object) -> Settings:
    return Settings.model_validate(
        {"operator_private_key_file": files["own"], "gateway_public_key_file": files["gateway"], **more}
    )


def test_hosts_trust_the_gateway_for_everything_and_the_operator_for_little(files: dict[str, Path]):
    settings = settings_of(files)
    own = own_key(settings)
    keys = trusted_keys(settings, own)
    assert [(key.kid, key.scopes) for key in keys.keys] == [
        ("gateway-1", sorted(ALL_SCOPES)),
        ("operator-1", [BIND, STATE]),
    ]
    token = own.signer.token(audience="pod", session_uid=None, scopes=ALL_SCOPES)
    assert Verifier("pod", keys).verify(token).scopes == {BIND, STATE}
    with pytest.raises(TokenError):
        Verifier("another pod", keys).verify(token)


def test_a_certificate_is_taken_for_its_key(files: dict[str, Path]):
    own = own_key(settings_of(files))
    plain = trusted_keys(settings_of(files), own)
    assert trusted_keys(settings_of(files, gateway_public_key_file=files["certificate"]), own) == plain


def test_a_renewed_key_waits_for_the_next_start_as_its_signer_does(files: dict[str, Path]):
    settings = settings_of(files)
    own = own_key(settings)
    files["own"].write_text(generate_private_key())
    token = own.signer.token(audience="pod", session_uid=None, scopes=[BIND])
    assert Verifier("pod", trusted_keys(settings, own)).verify(token).scopes == {BIND}
    again = own_key(settings).signer.token(audience="pod", session_uid=None, scopes=[BIND])
    assert Verifier("pod", trusted_keys(settings, own_key(settings))).verify(again).scopes == {BIND}


def test_further_keys_let_the_gateway_rotate(files: dict[str, Path]):
    files["further"].write_text(json.dumps([{"kid": "gateway-0", "pem": public_key_of(generate_private_key())}]))
    settings = settings_of(files, further_keys_file=files["further"])
    keys = trusted_keys(settings, own_key(settings))
    assert [key.kid for key in keys.keys] == ["gateway-1", "gateway-0", "operator-1"]


def rsa_public() -> str:
    key = rsa.generate_private_key(65537, 2048).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("own", None, "cannot be read"),
        ("own", "no key", "must hold an Ed25519 private key"),
        ("gateway", None, "cannot be read"),
        ("gateway", "no key", "the gateway's key must be a public key or a certificate"),
        ("gateway", "rsa", "the gateway's key must be an Ed25519 key"),
        ("further", "{}", 'must be a JSON list of {"kid"'),
        ("further", '[{"kid": "gateway-1", "pem": "same"}]', "key ids must be different"),
        ("further", '[{"kid": "old", "pem": "none"}]', "key 'old' must be a public key"),
    ],
)
def test_wrong_keys_are_told(files: dict[str, Path], name: str, text: str | None, message: str):
    settings = settings_of(files, further_keys_file=files["further"])
    files["further"].write_text("[]")
    if text is None:
        files[name].unlink()
    else:
        same = json.dumps(files["gateway"].read_text())
        files[name].write_text(rsa_public() if text == "rsa" else text.replace('"same"', same))
    with pytest.raises(ConfigurationError, match=message):
        trusted_keys(settings, own_key(settings))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CARREL_OPERATOR_PRIVATE_KEY_FILE", "/keys/tls.key")
    monkeypatch.setenv("CARREL_GATEWAY_PUBLIC_KEY_FILE", "/keys/tls.crt")
    monkeypatch.setenv("CARREL_SESSION_NAMESPACE", "one, two")
    monkeypatch.setenv("CARREL_GATEWAY_SELECTOR", "app.kubernetes.io/name=carrel,app.kubernetes.io/component=gateway")
    settings = load()
    assert settings.session_namespaces == ["one", "two"]
    assert labels_of(settings.gateway_selector) == {
        "app.kubernetes.io/name": "carrel",
        "app.kubernetes.io/component": "gateway",
    }
    assert settings.pod_name
    assert (settings.pod_ip, settings.reach_port) == ("", 8081)


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CARREL_WORKERS", "0")
    monkeypatch.setenv("CARREL_CLOSED_RANGES", "10.0.0.0/8,here")
    monkeypatch.setenv("CARREL_GATEWAY_SELECTOR", "gateway")
    monkeypatch.setenv("CARREL_POD_IP", "operator.carrel")
    with pytest.raises(ConfigurationError) as error:
        load()
    for text in (
        "CARREL_WORKERS: Input should be greater than or equal to 2",
        "CARREL_CLOSED_RANGES: Value error, 'here' does not appear to be an IPv4 or IPv6 network",
        "CARREL_POD_IP: Value error, 'operator.carrel' does not appear to be an IPv4 or IPv6 address",
        "CARREL_GATEWAY_SELECTOR: Value error, must be labels such as",
        "CARREL_OPERATOR_PRIVATE_KEY_FILE: Field required",
    ):
        assert text in str(error.value)


def test_every_setting_and_every_series_is_in_the_reference():
    page = (ROOT / "docs/reference/operator.md").read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"`CARREL_{name.upper()}`" in page
    source = (ROOT / "operator/carrel_operator/metrics.py").read_text(encoding="utf-8")
    series = [part for part in source.split('"') if part.startswith("carrel_operator_")]
    assert len(series) > 10
    for name in series:
        assert f"`{name}`" in page
