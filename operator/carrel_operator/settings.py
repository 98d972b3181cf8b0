"""Settings of the operator, from `CARREL_*` variables. No secret is among them: the private key is a file."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from carrel_operator.errors import ConfigurationError

_SELECTOR: Final = re.compile(r"[A-Za-z0-9./_-]+=[A-Za-z0-9._-]+(,[A-Za-z0-9./_-]+=[A-Za-z0-9._-]+)*")


class Settings(BaseSettings):
    """Everything that is decided when the operator starts."""

    model_config = SettingsConfigDict(env_prefix="CARREL_", extra="forbid", frozen=True, use_attribute_docstrings=True)

    namespace: str = "carrel"
    """Where the operator's and the gateway's pods are; the lease is there too."""
    pod_name: Annotated[str, Field(min_length=1)] = Field(default_factory=socket.gethostname)
    """Name of this replica in the lease; the host's name when left out."""
    session_namespace: Annotated[str, Field(min_length=1)] = "carrel-sessions"
    """Where sessions live: one namespace, or several separated by commas. Objects elsewhere are not looked at."""
    lease_name: str = "carrel-operator"
    """The Lease that says which replica writes."""
    operator_private_key_file: Path
    """The operator's Ed25519 private key (PKCS #8 PEM)."""
    operator_key_id: Annotated[str, Field(min_length=1, max_length=63)] = "operator-1"
    """Id of that key."""
    gateway_public_key_file: Path
    """The gateway's Ed25519 public key, or a certificate that holds it (PEM)."""
    gateway_key_id: Annotated[str, Field(min_length=1, max_length=63)] = "gateway-1"
    """Id of that key."""
    further_keys_file: Path | None = None
    """More public keys of the gateway, while they are rotated: a JSON list of `{"kid": …, "pem": …}`."""
    gateway_selector: str = "app.kubernetes.io/component=gateway"
    """Labels of the gateway's pods: `key=value`, separated by commas."""
    operator_selector: str = "app.kubernetes.io/component=operator"
    """Labels of the operator's pods."""
    closed_ranges: str = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7"
    """Address ranges, separated by commas, that a class opens only by naming a range inside them; empty: none."""
    probe_address: str = "0.0.0.0"
    """Address of the probes and of the metrics."""
    probe_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of `/healthz` and `/readyz`; 0 takes a free one."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9090
    """Port of `/metrics`; 0 takes a free one."""
    pod_ip: str = ""
    """Address of the operator's pod, which kernel pods must not reach; empty: nobody tries, and nothing is proven."""
    reach_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port of that address where connections are taken and closed without a word; 0 takes a free one."""
    workers: Annotated[int, Field(ge=2, le=256)] = 32
    """Sessions worked on at the same time; one tenant's are at most three quarters of them."""
    host_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Longest wait for a kernel host's answer."""
    resync_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Network policies and keys of each session namespace are put right at least this often."""
    snapshots: bool = True
    """Whether gateways save the state of a pod before it ends; without them a suspended session loses its variables,
    and an idle one ends."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are logged."""

    @field_validator("gateway_selector", "operator_selector")
    @classmethod
    def _is_selector(cls, value: str) -> str:
        if not _SELECTOR.fullmatch(value):
            raise ValueError("must be labels such as app.kubernetes.io/name=carrel,app.kubernetes.io/component=gateway")
        return value

    @field_validator("pod_ip")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return str(ipaddress.ip_address(value)) if value else ""

    @field_validator("closed_ranges")
    @classmethod
    def _are_ranges(cls, value: str) -> str:
        _networks(value)
        return value

    @property
    def closed_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The closed ranges, one by one."""
        return _networks(self.closed_ranges)

    @property
    def session_namespaces(self) -> list[str]:
        """The session namespaces, one by one."""
        return [name.strip() for name in self.session_namespace.split(",") if name.strip()]


def _networks(ranges: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(cidr.strip()) for cidr in ranges.split(",") if cidr.strip())


def labels_of(selector: str) -> dict[str, str]:
    """Return the labels that a selector such as `a=b,c=d` names."""
    return dict(pair.split("=", 1) for pair in selector.split(","))


def load() -> Settings:
    """Return the settings of the environment.

    Raises
    ------
    ConfigurationError
        A variable is missing or wrong; the message names each.
    """
    try:
        return Settings()  # pyright: ignore[reportCallIssue] (the required ones come from the environment)
    except ValidationError as error:
        wrong = "; ".join(
            f"CARREL_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"wrong settings: {wrong}") from error
