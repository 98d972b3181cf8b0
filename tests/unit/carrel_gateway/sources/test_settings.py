"""Where settings come from.

Plan: every name of the source documents (features 85 to 132) is read, with its effect, or known to have none; places go
in their order, and names in theirs; two names that differ are told without their values; unknown names are refused
with the nearest one, and names of others are not; files that cannot be used are refused with the reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from carrel_gateway.settings import Settings
from carrel_gateway.sources.names import KERNEL_HOST, OPERATOR
from carrel_gateway.sources.reading import InvalidSettings

DOCS = Path(__file__).parents[4] / "docs" / "reference"
NAMES = [
    (85, "LLM_MODEL", "openai/gpt-4o", "llm_model", "openai/gpt-4o"),
    (86, "LLM_API_KEY", "k", "llm_api_key", "k"),
    (87, "ANTHROPIC_API_KEY", "k", "anthropic_api_key", "k"),
    (88, "LLM_API_BASE", "http://proxy", "llm_api_base", "http://proxy"),
    (89, "DSAGENT_HOST", "0.0.0.0", "host", "0.0.0.0"),
    (90, "DSAGENT_PORT", "8001", "port", 8001),
    (91, "DSAGENT_API_KEY", "k", "api_key", "k"),
    (92, "DSAGENT_CORS_ORIGINS", "https://a, https://b", "cors_origins", ["https://a", "https://b"]),
    (93, "DSAGENT_LOG_LEVEL", "debug", "log_level", "debug"),
    (94, "DSAGENT_DATABASE_URL", "postgresql://h/d", "database_url", "postgresql://h/d"),
    (95, "DSAGENT_DB_POOL_SIZE", "7", "db_pool_size", 7),
    (96, "DSAGENT_DB_MAX_OVERFLOW", "11", "db_max_overflow", 11),
    (97, "DSAGENT_REDIS_URL", "redis://h", "redis_url", "redis://h"),
    (98, "DSAGENT_CACHE_TTL", "60", "cache_ttl", 60.0),
    (99, "DSAGENT_STORAGE_TYPE", "local", "storage_type", "local"),
    (100, "DSAGENT_STORAGE_PATH", "/x", "storage_path", Path("/x")),
    (101, "DSAGENT_S3_BUCKET", "b", "s3_bucket", "b"),
    (102, "DSAGENT_S3_REGION", "eu-west-1", "s3_region", "eu-west-1"),
    (103, "DSAGENT_S3_ACCESS_KEY", "k", "s3_access_key", "k"),
    (104, "DSAGENT_S3_SECRET_KEY", "k", "s3_secret_key", "k"),
    (105, "DSAGENT_S3_ENDPOINT", "http://minio", "s3_endpoint", "http://minio"),
    (106, "DSAGENT_GCS_BUCKET", "b", "gcs_bucket", "b"),
    (107, "DSAGENT_GCS_PROJECT", "p", "gcs_project", "p"),
    (109, "DSAGENT_AZURE_CONTAINER", "c", "azure_container", "c"),
    (110, "DSAGENT_AZURE_CONNECTION_STRING", "k", "azure_connection_string", "k"),
    (111, "DSAGENT_EXECUTOR_TYPE", "local", "executor_type", "local"),
    (112, "DSAGENT_DOCKER_IMAGE", "i", "docker_image", "i"),
    (113, "DSAGENT_DOCKER_MEMORY_LIMIT", "8g", "docker_memory_limit", "8g"),
    (114, "DSAGENT_DOCKER_CPU_LIMIT", "2", "docker_cpu_limit", 2),
    (115, "DSAGENT_UI_ENABLED", "false", "ui_enabled", False),
    (116, "DSAGENT_UI_PATH", "/ui", "ui_path", Path("/ui")),
    (117, "LLM_PROVIDER", "azure", "llm_provider", "azure"),
    (118, "OPENAI_API_KEY", "k", "openai_api_key", "k"),
    (119, "OPENAI_MODEL", "gpt-4o", "llm_model", "gpt-4o"),
    (120, "MAX_TOKENS_PER_REQUEST", "5000", "max_tokens_per_request", 5000),
    (121, "ENABLE_STREAMING", "false", "llm_streaming", False),
    (122, "REDIS_HOST", "r", "redis_host", "r"),
    (123, "REDIS_PORT", "6380", "redis_port", 6380),
    (124, "REDIS_DB", "2", "redis_db", 2),
    (125, "REDIS_PASSWORD", "k", "redis_password", "k"),
    (126, "AGENT_MAX_RETRIES", "4", "agent_max_retries", 4),
    (127, "AGENT_TIMEOUT_SECONDS", "500", "agent_timeout_seconds", 500.0),
    (128, "MAX_CONCURRENT_SESSIONS", "10", "max_concurrent_sessions", 10),
    (129, "SANDBOX_MAX_EXECUTION_TIME", "200", "execution_timeout_seconds", 200.0),
    (130, "SANDBOX_MAX_MEMORY_MB", "1024", "kernel_memory_mb", 1024),
    (131, "ARTIFACT_STORAGE_PATH", "/a", "storage_path", Path("/a")),
    (132, "ARTIFACT_MAX_SIZE_MB", "1.5", "upload_max_bytes", 3 * 512 * 1024),
]
"""All but 108, GOOGLE_APPLICATION_CREDENTIALS, which the libraries of Google read by themselves."""


def shown(value):
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.mark.parametrize(
    ("name", "text", "setting", "value"), [row[1:] for row in NAMES], ids=[row[1] for row in NAMES]
)
def test_every_name_of_the_source_documents_is_read(name, text, setting, value, monkeypatch):
    monkeypatch.setenv(name, text)
    settings = Settings()
    if setting in Settings.model_fields:
        assert shown(getattr(settings, setting)) == value
        assert settings.found.origins[setting].name == name
        assert not settings.found.warnings
    else:
        (warning,) = settings.found.warnings
        assert warning.startswith(f"{name} has no effect: this version has no ")


def test_a_provider_goes_before_a_name_without_one(monkeypatch):
    monkeypatch.setenv("LLM_PROVIDER", "azure")
    assert Settings().llm_model == "demo/analyst"
    monkeypatch.setenv("OPENAI_MODEL", "gpt-4o")
    assert Settings().llm_model == "azure/gpt-4o"
    monkeypatch.setenv("OPENAI_MODEL", "openai/gpt-4o")
    assert Settings().llm_model == "openai/gpt-4o"


def test_redis_by_its_parts(monkeypatch):
    monkeypatch.setenv("REDIS_PORT", "tcp://10.0.0.1:6379")  # as Kubernetes sets it for a Service of that name
    monkeypatch.setenv("REDIS_DB", "3")
    assert Settings().redis_url is None
    monkeypatch.setenv("REDIS_HOST", "cache")
    assert Settings().redis_url == "redis://cache:6379/3"
    monkeypatch.setenv("REDIS_PASSWORD", "p@ss/w")
    assert Settings().redis_url == "redis://:p%40ss%2Fw@cache:6379/3"
    assert Settings(redis_url="redis://other").redis_url == "redis://other"


def test_places_in_their_order(home, monkeypatch):
    places = [
        (home / "config.yaml", "log_level: error\n"),
        (home / ".env", "CARREL_LOG_LEVEL=warning\n"),
        (Path(".env"), "CARREL_LOG_LEVEL=debug\n"),
    ]
    assert Settings().log_level == "info"
    for path, text in places:
        path.write_text(text)
        settings = Settings()
        assert settings.log_level == re.split("[:=]", text)[1].strip()
        origin = settings.found.origins["log_level"]
        assert Path(origin.place).absolute() == path.absolute()
    monkeypatch.setenv("CARREL_LOG_LEVEL", "error")
    settings = Settings()
    assert settings.log_level == "error"
    assert str(settings.found.origins["log_level"]) == "CARREL_LOG_LEVEL"
    folder = home / "secrets"
    folder.mkdir()
    (folder / "carrel_log_level").write_text("info\n")
    Path(".env").write_text(f"CARREL_SECRETS_DIR={folder}\n")
    settings = Settings()
    assert settings.log_level == "info"
    assert not settings.found.warnings  # the same name in several places is what places are for
    assert Settings(log_level="debug").log_level == "debug"


def test_names_in_their_order_and_a_warning_without_values(monkeypatch):
    for name in ("OPENAI_MODEL", "LLM_MODEL", "DSAGENT_LLM_MODEL", "CARREL_LLM_MODEL"):
        monkeypatch.setenv(name, f"model-of-{name.lower()}")
        settings = Settings()
        assert settings.llm_model == f"model-of-{name.lower()}"
        assert all(warning.startswith(f"{name} and ") for warning in settings.found.warnings)
    assert settings.found.warnings == [
        f"CARREL_LLM_MODEL and {loser} differ; CARREL_LLM_MODEL is used, {loser} is not"
        for loser in ("DSAGENT_LLM_MODEL", "LLM_MODEL", "OPENAI_MODEL")
    ]
    for name in ("OPENAI_MODEL", "LLM_MODEL", "DSAGENT_LLM_MODEL"):
        monkeypatch.setenv(name, "model-of-carrel_llm_model")
    assert not Settings().found.warnings


def test_an_empty_name_is_none_and_gives_way_to_one_with_a_value(home, monkeypatch):
    (home / ".env").write_text("LLM_API_BASE=http://proxy\nCARREL_KERNEL_PRELOAD=numpy\n")
    assert Settings().llm_api_base == "http://proxy"
    monkeypatch.setenv("LLM_API_BASE", "")
    monkeypatch.setenv("CARREL_KERNEL_PRELOAD", "")
    assert Settings().llm_api_base is None
    assert Settings().kernel_preload == ""
    monkeypatch.setenv("CARREL_S3_BUCKET", "")
    monkeypatch.setenv("DSAGENT_S3_BUCKET", "b")
    assert Settings().s3_bucket == "b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CARREL_DATABSE_URL", "CARREL_DATABSE_URL is no setting; did you mean CARREL_DATABASE_URL?"),
        ("DSAGENT_POTR", "DSAGENT_POTR is no setting; did you mean DSAGENT_PORT?"),
        ("CARREL_KERNEL_MEMRY_MB", "CARREL_KERNEL_MEMRY_MB is no setting; did you mean CARREL_KERNEL_MEMORY_MB?"),
        ("CARREL_ZZZ", "CARREL_ZZZ is no setting; the reference has them all"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, said, monkeypatch, home):
    monkeypatch.setenv(name, "a-secret")
    with pytest.raises(InvalidSettings) as refused:
        Settings()
    assert refused.value.message == said
    monkeypatch.delenv(name)
    (home / ".env").write_text(f"{name}=a-secret\nOF_ANOTHER_PROGRAM=1\n")
    with pytest.raises(InvalidSettings) as refused:
        Settings()
    assert refused.value.message == said.replace(f"{name} is", f"{name} ({home / '.env'}) is")


def test_all_that_is_wrong_is_told_at_once_without_values(home):
    (home / "config.toml").write_text('prot = 1\nsecrets_dir = "/x"\nllm_api_keys = "sk-hidden"\n')
    with pytest.raises(InvalidSettings) as refused:
        Settings()
    file = home / "config.toml"
    assert refused.value.message.splitlines() == [
        f"prot ({file}) is no setting; did you mean port?",
        f"secrets_dir ({file}) says where to look, and cannot be in the file itself: set CARREL_SECRETS_DIR",
        f"llm_api_keys ({file}) is no setting; did you mean llm_api_key?",
    ]
    file.write_text('port = 70000\napi_key = 3\ncors_origins = ["https://a", "https://b"]\n')
    with pytest.raises(InvalidSettings) as refused:
        Settings()
    assert refused.value.message.splitlines() == [
        f"port ({file}): Input should be less than or equal to 65535",
        f"api_key ({file}): Input should be a valid string",
    ]


def test_names_of_others_are_no_mistake(monkeypatch):
    own = {"CARREL_SERVER", "CARREL_TEST_KUBECONFIG", "CARREL_SOAK_SECONDS", "CARREL_MIGRATION_DATABASE_URL"}
    links = {
        "CARREL_PORT": "tcp://10.0.0.1:80",
        "CARREL_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "CARREL_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "CARREL_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "CARREL_GATEWAY_SERVICE_PORT_HTTP": "80",
    }
    for name, value in {**dict.fromkeys(own | OPERATOR | KERNEL_HOST, "x"), **links}.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.port == 8000
    assert not settings.found.origins
    assert not settings.found.warnings


@pytest.mark.parametrize(("page", "names"), [("operator", OPERATOR), ("kernel-host", KERNEL_HOST)])
def test_names_of_others_are_those_of_their_pages(page, names):
    told = set(re.findall(r"CARREL_[A-Z0-9_]+", (DOCS / f"{page}.md").read_text("utf-8")))
    own = {f"CARREL_{name.upper()}" for name in Settings.model_fields} | {"CARREL_CHART_DATA"}
    assert told - own == names


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.yaml", "port: 1\nport: 2\n", "port is there twice (line 1 and on)"),
        ("config.yaml", "llm_api_key: 'sk-hidden\nx", "(line 2)"),
        ("config.yaml", "- port\n", "must hold names of settings"),
        ("config.yaml", "1: x\n", "must hold names of settings"),
        ("config.toml", "port = \n", "(at line 1, column 8)"),
        ("config.ini", "[x]\n", "must end in .yaml, .yml or .toml"),
        ("config.yaml", None, "cannot be read: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used(name, text, said, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("CARREL_CONFIG_FILE", str(tmp_path / name))
    with pytest.raises(InvalidSettings) as refused:
        Settings()
    assert said in refused.value.message
    assert str(tmp_path / name) in refused.value.message
    assert "sk-hidden" not in refused.value.message


def test_one_configuration_file_is_enough(home):
    (home / "config.yaml").write_text("")
    assert Settings().found.values == {}
    (home / "config.toml").write_text("")
    with pytest.raises(InvalidSettings, match="keep one, or name one with CARREL_CONFIG_FILE"):
        Settings()


def test_without_env_files_nothing_of_the_home_is_read(home):
    (home / "config.yaml").write_text("port: 9\n")
    assert Settings().port == 9
    assert Settings(_env_file=None).port == 8000


def test_the_data_folder_is_a_path_from_the_root(home, monkeypatch):
    assert Settings().data_dir == home
    monkeypatch.setenv("CARREL_DATA_DIR", "~/desk")
    assert Settings().data_dir == home.parent / "desk"
    monkeypatch.setenv("CARREL_DATA_DIR", "desk")
    assert Settings().data_dir == Path.cwd() / "desk"


def test_a_folder_of_secrets_may_hold_what_is_no_text(tmp_path, monkeypatch):
    folder = tmp_path / "secrets"
    (folder / "..data").mkdir(parents=True)
    (folder / "keystore.p12").write_bytes(b"\x80\xff")
    (folder / "LLM_API_KEY").write_text("k\n")
    monkeypatch.setenv("CARREL_SECRETS_DIR", str(folder))
    assert shown(Settings().llm_api_key) == "k"
    (folder / "LLM_API_KEY").write_bytes(b"\x80\xff")
    (folder / "CARREL_API_KYE").write_text("k")
    with pytest.raises(InvalidSettings) as refused:
        Settings()
    assert refused.value.message == f"CARREL_API_KYE ({folder}) is no setting; did you mean CARREL_API_KEY?"
    (folder / "CARREL_API_KYE").unlink()
    with pytest.raises(InvalidSettings, match=r"LLM_API_KEY .*: Input should be a valid string"):
        Settings()
