"""All settings of the gateway process, in one object.

Each is a variable `CARREL_<NAME>`; the names of the source documents (`DSAGENT_<NAME>`, `LLM_MODEL`, …) are read too.
From where they are read is in `sources`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from carrel_gateway.model_routes import ModelRoute, faults
from carrel_gateway.sources.choosing import Found, Names, choose
from carrel_gateway.sources.names import names_of
from carrel_gateway.sources.reading import ENV_FILES, InvalidSettings, read_layers
from carrel_gateway.sources.values import derived, told

_MIB: Final = 1024 * 1024
_NAMES: Final[dict[str, tuple[str, ...]]] = {}
"""The variables of each setting; what goes first is first."""


def _setting(name: str, default: Any, description: str, *further: str, **bounds: Any) -> Any:
    _NAMES[name] = names_of(name, further)
    return Field(default, description=description, **bounds)


class Settings(BaseModel):
    """Settings of one gateway process; see `docs/reference/settings.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    _found: Found = PrivateAttr()

    def __init__(self, _env_file: Sequence[str | Path] | None = ENV_FILES, **given: Any) -> None:
        """Read the settings; what is given goes before all that is read.

        Parameters
        ----------
        _env_file
            The `.env` files; with none, nothing of the home folder is read either.

        Raises
        ------
        InvalidSettings
            Something is not known, or cannot be used.
        """
        found = choose(names(), read_layers(_env_file))
        if found.problems:
            raise InvalidSettings("\n".join(found.problems))
        try:
            super().__init__(**{**found.values, **given})
        except ValidationError as error:
            raise InvalidSettings("\n".join(told(error, found, given))) from None  # its own message has the values
        self._found = found

    @property
    def found(self) -> Found:
        """What was read, from where, and what may not be as it was meant."""
        return self._found

    # server
    host: str = _setting("host", "127.0.0.1", "Address to listen on; the local executor allows loopback only.")
    port: int = _setting("port", 8000, "Port to listen on.", ge=0, le=65535)
    tls_cert_file: Path | None = _setting(
        "tls_cert_file", None, "Certificate with its chain (PEM) to speak HTTPS with; empty means plain HTTP."
    )
    tls_key_file: Path | None = _setting("tls_key_file", None, "Its private key (PEM).")
    secrets_dir: Path | None = _setting(
        "secrets_dir", None, "Folder of files that are named like variables and hold their values; those go first."
    )
    config_file: Path | None = _setting(
        "config_file", None, "File of settings in YAML or TOML; empty means config.yaml or config.toml in ~/.carrel."
    )
    metrics_port: int = _setting(
        "metrics_port", 0, "Port of /metrics on its own listener; 0 means off.", ge=0, le=65535
    )
    api_key: SecretStr | None = _setting(
        "api_key", None, "Key that callers present; the embedded default makes one on its first start."
    )
    secret_keys: SecretStr | None = _setting(
        "secret_keys",
        None,
        "Keys that sign tokens and encrypt secrets, `kid:base64` of 32 bytes each, the one in use first; the embedded "
        "default makes one.",
    )
    access_token_seconds: int = _setting(
        "access_token_seconds", 900, "Life of an access token; a refresh gets the next one.", ge=30, le=3600
    )
    cors_origins: list[str] = _setting(
        "cors_origins", [], "Origins, separated by commas, whose pages may call the API."
    )
    allowed_hosts: list[str] = _setting(
        "allowed_hosts", [], "Host names, separated by commas, that requests may name; empty means any, but local."
    )
    trusted_proxies: int = _setting(
        "trusted_proxies",
        0,
        "Proxies that every request passes through; X-Forwarded-For is believed from so many.",
        ge=0,
        le=10,
    )
    rate_per_principal: float | None = _setting(
        "rate_per_principal",
        None,
        "Calls a second of one user, over 10 s, with whichever keys; 0 means no limit, "
        "empty means 100, or no limit with the local executor.",
        ge=0,
    )
    rate_per_address: float | None = _setting(
        "rate_per_address",
        None,
        "Calls a second, over 10 s, from one address without a valid key; 0 means no limit, "
        "empty means 20, or no limit with the local executor.",
        ge=0,
    )
    rate_of_logins: float | None = _setting(
        "rate_of_logins",
        None,
        "Calls a minute of /api/auth from one address, by weight; 0 means no limit, "
        "empty means 60, or no limit with the local executor.",
        ge=0,
    )
    ui_enabled: bool = _setting("ui_enabled", True, "Whether the page and the API documentation are served.")
    ui_path: Path | None = _setting(
        "ui_path", None, "Folder with a page of yours: its files go before those of the page that is built in."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "log_level", "info", "Least level that is logged."
    )
    log_format: Literal["json", "console"] = _setting("log_format", "json", "How log lines are written.")

    # history
    data_dir: Path = _setting(
        "data_dir", Path("~/.carrel"), "Folder of the embedded product: database, files, sockets."
    )
    database_url: str | None = _setting(
        "database_url", None, "postgresql://… or sqlite:///…; empty means SQLite in the data folder."
    )
    db_pool_size: int = _setting(
        "db_pool_size",
        5,
        "Connections kept open to Postgres; as many again serve what every request does.",
        ge=1,
        le=1000,
    )
    db_max_overflow: int = _setting("db_max_overflow", 10, "Further connections under load.", ge=0, le=1000)
    retention_days: int = _setting(
        "retention_days", 0, "Days after its last event at which a session is deleted; 0 keeps all.", ge=0, le=36_500
    )
    jobs_concurrency: int = _setting(
        "jobs_concurrency", 4, "Jobs that one gateway works on at the same time.", ge=1, le=100
    )
    jobs_poll_seconds: float = _setting(
        "jobs_poll_seconds", 5.0, "Longest time between two looks for jobs that are due.", gt=0, le=60
    )
    job_lease_seconds: float = _setting(
        "job_lease_seconds", 30.0, "Time after which another gateway takes a job whose owner is silent.", gt=0
    )
    redis_url: str | None = _setting(
        "redis_url", None, "redis://…; empty means that bus, cache and limits of rates are in this process."
    )
    redis_host: str | None = _setting(
        "redis_host", None, "Host of the Redis, where there is no URL of it.", "REDIS_HOST"
    )
    redis_port: int = _setting("redis_port", 6379, "Its port.", "REDIS_PORT", ge=1, le=65535)
    redis_db: int = _setting("redis_db", 0, "Number of its database.", "REDIS_DB", ge=0)
    redis_password: SecretStr | None = _setting("redis_password", None, "Its password.", "REDIS_PASSWORD")
    cache_ttl: float = _setting("cache_ttl", 3600.0, "Longest life of what is in the cache; 0 means no cache.", ge=0)

    # people
    max_concurrent_sessions: int = _setting(
        "max_concurrent_sessions",
        0,
        "Sessions, archived ones aside, that a user may have for whom no quota says otherwise; 0 means no limit.",
        "MAX_CONCURRENT_SESSIONS",
        ge=0,
    )
    registration: str = _setting(
        "registration",
        "closed",
        "Who may register by mail: `closed` is nobody, `open` everybody, or domains of mail, separated by commas.",
    )
    admin_email: str | None = _setting(
        "admin_email",
        None,
        "Address of the first administrator of the default tenant, who is made at the start and gets a mail.",
    )
    login_days: float = _setting("login_days", 30.0, "Days after which a login that is not used ends.", gt=0, le=365)
    smtp_url: SecretStr | None = _setting(
        "smtp_url",
        None,
        "smtp://user:password@host:587 or smtps://… to send mail by; empty means into `outbox` of the data folder.",
    )
    mail_from: str = _setting("mail_from", "Carrel <carrel@localhost>", "Sender of the mails.")
    oidc_issuer: str | None = _setting(
        "oidc_issuer", None, "OpenID provider that people sign in with, as it names itself."
    )
    oidc_client_id: str | None = _setting("oidc_client_id", None, "Name of this gateway at the provider.")
    oidc_client_secret: SecretStr | None = _setting("oidc_client_secret", None, "Its secret there, if it has one.")
    oidc_client_secret_file: Path | None = _setting("oidc_client_secret_file", None, "File that holds the secret.")
    oidc_scopes: str = _setting("oidc_scopes", "openid email profile", "What the provider is asked for.")
    oidc_tenant: UUID | None = _setting(
        "oidc_tenant", None, "Tenant that whoever signs in for the first time joins; empty means the default tenant."
    )
    oidc_role: Literal["readonly", "user"] = _setting("oidc_role", "user", "Their role in it.")

    # artifacts
    storage_type: Literal["local", "s3", "gcs", "azure"] = _setting(
        "storage_type", "local", "Where artifacts are kept."
    )
    storage_path: Path | None = _setting(
        "storage_path", None, "Folder of the local store; empty means in the data folder.", "ARTIFACT_STORAGE_PATH"
    )
    s3_bucket: str | None = _setting("s3_bucket", None, "Bucket of the S3 store.")
    s3_region: str = _setting("s3_region", "us-east-1", "Region of the bucket.")
    s3_access_key: SecretStr | None = _setting("s3_access_key", None, "Access key; empty means the platform's own.")
    s3_secret_key: SecretStr | None = _setting("s3_secret_key", None, "Secret key.")
    s3_endpoint: str | None = _setting("s3_endpoint", None, "Endpoint, for stores other than AWS.")
    s3_public_endpoint: str | None = _setting(
        "s3_public_endpoint", None, "Endpoint in signed addresses, where callers reach the store by another name."
    )
    gcs_bucket: str | None = _setting("gcs_bucket", None, "Bucket of the store on Google Cloud.")
    gcs_project: str | None = _setting(
        "gcs_project", None, "Its project, for people to know; a bucket is found by its name alone."
    )
    google_application_credentials: Path | None = _setting(
        "google_application_credentials",
        None,
        "File of a service account's key; empty means the platform's own identity.",
        "GOOGLE_APPLICATION_CREDENTIALS",
    )
    gcs_endpoint: str | None = _setting("gcs_endpoint", None, "Endpoint, where it is not Google's public one.")
    gcs_public_endpoint: str | None = _setting(
        "gcs_public_endpoint",
        None,
        "Endpoint in signed addresses; what is there must pass requests on as `Host: storage.googleapis.com`.",
    )
    azure_container: str | None = _setting("azure_container", None, "Container of the store on Azure.")
    azure_connection_string: SecretStr | None = _setting(
        "azure_connection_string",
        None,
        "The account's connection string, as Azure shows it; without `AccountKey` the platform's own identity is used.",
    )
    azure_public_endpoint: str | None = _setting(
        "azure_public_endpoint", None, "Endpoint in signed addresses, where callers reach the store by another name."
    )
    public_url: str | None = _setting(
        "public_url", None, "Address of this gateway in signed addresses of the local store."
    )
    upload_max_bytes: int = _setting(
        "upload_max_bytes", 512 * _MIB, "Largest file that may be uploaded.", "ARTIFACT_MAX_SIZE_MB", ge=1
    )
    signed_url_seconds: int = _setting("signed_url_seconds", 300, "Life of a signed address.", ge=1, le=300)

    # execution
    executor_type: Literal["local", "kubernetes"] = _setting("executor_type", "local", "Where kernels run.")
    execution_timeout_seconds: float = _setting(
        "execution_timeout_seconds", 300.0, "Longest time of one cell.", "SANDBOX_MAX_EXECUTION_TIME", gt=0
    )
    kernel_memory_mb: int = _setting(
        "kernel_memory_mb", 2048, "Memory of one kernel of the local executor, MiB.", "SANDBOX_MAX_MEMORY_MB", ge=128
    )
    kernel_preload: str = _setting(
        "kernel_preload",
        "numpy,pandas,matplotlib.pyplot,sklearn",
        "Modules that kernels of the local executor have imported when they start.",
    )
    kernel_allowed_imports: str = _setting(
        "kernel_allowed_imports",
        "",
        "Modules that cells of the local executor may import (a lint, no boundary); empty means any, `standard` those "
        "of data analysis.",
    )
    spare_kernel_host: bool = _setting(
        "spare_kernel_host", True, "Whether the local executor keeps a kernel host ready for the next session."
    )
    kernel_start_seconds: float = _setting(
        "kernel_start_seconds", 60.0, "Longest wait for a kernel host to be there.", gt=0
    )
    checkpoint_seconds: float = _setting(
        "checkpoint_seconds",
        300.0,
        "Rest after which a session's state is saved in the background, should its kernel be lost; 0 means never.",
        ge=0,
    )
    wake_hold_seconds: float = _setting(
        "wake_hold_seconds",
        20.0,
        "Longest time that a request waits for a suspended or new session's kernel; then it is answered 202.",
        gt=0,
    )
    kernel_private_key_file: Path | None = _setting(
        "kernel_private_key_file", None, "Ed25519 key (PKCS #8 PEM) that signs calls to kernel hosts."
    )
    kernel_key_id: str = _setting("kernel_key_id", "gateway-1", "Name of that key in the hosts' key set.")
    session_namespace: str = _setting("session_namespace", "carrel-sessions", "Namespace of AgentSession objects.")
    session_class: str = _setting(
        "session_class", "", "SessionClass of new sessions; empty means the cluster's default."
    )

    # agents
    llm_model: str = _setting(
        "llm_model", "demo/analyst", "Model of new sessions; demo/analyst needs no key.", "LLM_MODEL", "OPENAI_MODEL"
    )
    llm_provider: str | None = _setting(
        "llm_provider",
        None,
        "Provider of the model where its name has none before a `/`: openai, anthropic, azure, …",
        "LLM_PROVIDER",
        pattern=r"^[a-z0-9_]+$",
    )
    llm_api_key: SecretStr | None = _setting("llm_api_key", None, "Key of the model's provider.", "LLM_API_KEY")
    llm_api_base: str | None = _setting("llm_api_base", None, "Address of the provider or of a proxy.", "LLM_API_BASE")
    openai_api_key: SecretStr | None = _setting(
        "openai_api_key", None, "Key for models of OpenAI, where there is no other.", "OPENAI_API_KEY"
    )
    anthropic_api_key: SecretStr | None = _setting(
        "anthropic_api_key", None, "Key for models of Anthropic, where there is no other.", "ANTHROPIC_API_KEY"
    )
    llm_streaming: bool = _setting(
        "llm_streaming", True, "Whether replies of models come in parts as they are written.", "ENABLE_STREAMING"
    )
    models: list[str] = _setting("models", [], "Further models, separated by commas, that sessions may choose.")
    model_routes: dict[str, ModelRoute] = _setting(
        "model_routes", {}, "Where calls of which model go, as below; as a variable it is JSON."
    )
    agent_max_retries: int = _setting(
        "agent_max_retries", 3, "Times that a failing cell of one step is corrected.", "AGENT_MAX_RETRIES", ge=0, le=20
    )
    agent_max_steps: int = _setting("agent_max_steps", 20, "Model calls of one run.", ge=1, le=500)
    agent_timeout_seconds: float = _setting(
        "agent_timeout_seconds", 600.0, "Wall time of one run.", "AGENT_TIMEOUT_SECONDS", gt=0
    )
    max_tokens_per_request: int = _setting(
        "max_tokens_per_request", 4000, "Tokens of one reply of a model.", "MAX_TOKENS_PER_REQUEST", ge=16
    )
    run_lease_seconds: float = _setting(
        "run_lease_seconds", 15.0, "Time after which another gateway takes over a run whose owner is silent.", gt=0
    )

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, given: dict[str, Any]) -> dict[str, Any]:
        return derived(given)

    @field_validator("cors_origins", "allowed_hosts", "models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("model_routes", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        try:
            return json.loads(value or "{}") if isinstance(value, str) else value
        except ValueError:
            raise ValueError("as a variable it must be JSON") from None

    @model_validator(mode="after")
    def _whole_routes(self) -> Settings:
        if wrong := list(faults(self.model_routes, {self.llm_model, *self.models, "demo/analyst"})):
            raise ValueError(f"CARREL_MODEL_ROUTES: {'; '.join(wrong)}")
        return self

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        needed = {
            "s3": ("s3_bucket",),
            "gcs": ("gcs_bucket",),
            "azure": ("azure_container", "azure_connection_string"),
        }
        for name in needed.get(self.storage_type, ()):
            if not getattr(self, name):
                raise ValueError(f"CARREL_{name.upper()} must be set when CARREL_STORAGE_TYPE is {self.storage_type}")
        if self.executor_type == "kubernetes" and not self.kernel_private_key_file:
            raise ValueError("CARREL_KERNEL_PRIVATE_KEY_FILE must be set when CARREL_EXECUTOR_TYPE is kubernetes")
        return self

    @model_validator(mode="after")
    def _whole_tls(self) -> Settings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("CARREL_TLS_CERT_FILE and CARREL_TLS_KEY_FILE must be set together")
        return self

    @property
    def database(self) -> str:
        """URL of the database in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'carrel.db'}"

    @property
    def is_embedded(self) -> bool:
        """Whether the database is this installation's own file, which no other gateway has."""
        return self.database.startswith("sqlite")

    @property
    def principal_rate(self) -> float:
        """Calls a second of one user in force; 0 means no limit."""
        return self._rate(self.rate_per_principal, 100)

    @property
    def address_rate(self) -> float:
        """Calls a second of one address in force; 0 means no limit."""
        return self._rate(self.rate_per_address, 20)

    @property
    def login_rate(self) -> float:
        """Calls a minute of what people log in with, from one address, in force; 0 means no limit."""
        return self._rate(self.rate_of_logins, 60)

    def _rate(self, given: float | None, default: float) -> float:
        # One person on their own machine is nobody to be protected from.
        return given if given is not None else 0 if self.executor_type == "local" else default

    @property
    def objects_dir(self) -> Path:
        """Folder of the local object store."""
        return self.storage_path or self.data_dir / "objects"


def names() -> Names:
    """Return the variables of all settings."""
    fields = Settings.model_fields
    return Names(_NAMES, frozenset(name for name, field in fields.items() if field.default is None))
