"""Read the settings of a process once, from the environment and a TOML file, into one frozen object.

An environment variable overrides the file. The connection to the Temporal server is not part of them: use the SDK's
own settings (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS…, profiles). Equivalent variables of
the deployed system are accepted, those of Kubernetes ignored, and misspelt names reported.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from .errors import SettingsError
from .identity_settings import IDENTITY_VARIABLES, IdentitySettings, identity_violations, is_loopback
from .setting_errors import describe_violations

__all__ = [
    "DEFAULT_FILE",
    "IGNORED",
    "OLDER_NAMES",
    "Settings",
    "TenantQuotas",
    "ignored_warning",
    "is_loopback",
    "is_of_kubernetes",
    "load_settings",
    "nearest",
    "tls_violations",
]

DEFAULT_FILE = "contextworker.toml"
"""Settings file in the current folder, unless CONTEXTWORKER_SETTINGS names another; optional."""

_VARIABLES = {
    "WORKER_HOST": "host",
    "WORKER_PORT": "port",
    "WORKER_HTTP_PORT": "http_port",
    "WORKER_HTTP_ORIGINS": "http_origins",
    "WORKER_MODULES": "module_paths",
    "CONTEXTWORKER_ALLOW_UNAUTHENTICATED": "allow_unauthenticated",
    "CONTEXTWORKER_AUTH": "auth",
    "CONTEXTWORKER_BODY_TIMEOUT": "body_timeout",
    "CONTEXTWORKER_BUILD_ID": "build_id",
    "CONTEXTWORKER_DATA_FOLDER": "data_folder",
    "CONTEXTWORKER_DEPLOYMENT_NAME": "deployment_name",
    "CONTEXTWORKER_MAX_BYTES_IN_FLIGHT": "max_bytes_in_flight",
    "CONTEXTWORKER_MAX_PAYLOAD_VALUES": "max_payload_values",
    "CONTEXTWORKER_MAX_TENANT_BYTES_IN_FLIGHT": "max_tenant_bytes_in_flight",
    "CONTEXTWORKER_MAX_UNIT_BYTES": "max_unit_bytes",
    "CONTEXTWORKER_TEMPORAL_TIMEOUT": "temporal_timeout",
    "CONTEXTWORKER_HEALTH_PORT": "health_port",
    "CONTEXTWORKER_LOG_FORMAT": "log_format",
    "CONTEXTWORKER_LOG_LEVEL": "log_level",
    "CONTEXTWORKER_MAX_CACHED_WORKFLOWS": "max_cached_workflows",
    "CONTEXTWORKER_MAX_CONNECTION_CALLS": "max_connection_calls",
    "CONTEXTWORKER_MAX_CONCURRENT_ACTIVITIES": "max_concurrent_activities",
    "CONTEXTWORKER_METRICS_HOST": "metrics_host",
    "CONTEXTWORKER_METRICS_PORT": "metrics_port",
    "CONTEXTWORKER_PAYLOAD_KEYS_FILE": "payload_keys_file",
    "CONTEXTWORKER_PAYLOAD_STORAGE": "payload_storage",
    "CONTEXTWORKER_PAYLOAD_STORAGE_THRESHOLD": "payload_storage_threshold",
    "CONTEXTWORKER_QUOTAS_FILE": "quotas_file",
    "CONTEXTWORKER_QUOTAS_REDIS_URL": "quotas_redis_url",
    "CONTEXTWORKER_READY_FILE": "ready_file",
    "CONTEXTWORKER_REQUIRE_TLS": "require_tls",
    "CONTEXTWORKER_SHUTDOWN_DELAY": "shutdown_delay",
    "CONTEXTWORKER_SHUTDOWN_GRACE": "shutdown_grace",
    "CONTEXTWORKER_SNAPSHOT_KEY_FILE": "snapshot_key_file",
    "CONTEXTWORKER_TARGET_CPU_USAGE": "target_cpu_usage",
    "CONTEXTWORKER_TARGET_MEMORY_USAGE": "target_memory_usage",
    "CONTEXTWORKER_TLS_CERT_FILE": "tls_cert_file",
    "CONTEXTWORKER_TLS_CLIENT_CA_FILE": "tls_client_ca_file",
    "CONTEXTWORKER_TLS_KEY_FILE": "tls_key_file",
    "CONTEXTWORKER_TOKEN_KEYS_FILE": "token_keys_file",
    "CONTEXTWORKER_TOKEN_SECRET": "token_secret",
    "CONTEXTWORKER_TOKEN_SECRET_FILE": "token_secret_file",
    **IDENTITY_VARIABLES,
}
_SETTINGS_FILE = "CONTEXTWORKER_SETTINGS"
_CLIENT_VARIABLES = frozenset({"CONTEXTWORKER_TARGET", "CONTEXTWORKER_TENANT", "CONTEXTWORKER_TOKEN"})
"""Variables of the commands that call a running service; not settings of a service or worker."""
_CODEC_VARIABLE = "CONTEXTWORKER_PURE_PYTHON"
"""Variables that the codec reads at import, before the settings."""
_LIST_FIELDS = frozenset({"http_origins", "jwt_audience", "module_paths"})
_REDIS_FIELDS = ("quotas_redis_url", "revoked_tokens_redis_url")
_LOOPBACK = "127.0.0.1"
_STORAGE = re.compile(r"file:///[^?#]*|s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()/\-]*)?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+")


class TenantQuotas(BaseModel):
    """Quotas of one tenant, in a service that requires tokens, and in workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    starts_per_second: float = Field(default=10, gt=0)
    """Starts of tasks and programs per second, on average."""
    starts_burst: int = Field(default=100, ge=1)
    """Burst of starts, after a time without any."""
    open_tasks: int = Field(default=10_000, ge=1)
    """Open tasks of one workflow_type."""
    programs: int = Field(default=100, ge=1)
    """Open programs, with or without a waiting caller."""
    running_programs: int = Field(default_factory=lambda: max(4, 2 * (os.cpu_count() or 1)), ge=1)
    """Programs on Temporal at once, per process of the service; further ones wait there for their turn."""
    concurrent_calls: int = Field(default=100, ge=1)
    """Concurrent calls, except watches, of callers with the same tenants."""
    watches: int = Field(default=200, ge=1)
    """Concurrent watches of callers with the same tenants."""
    schedules: int = Field(default=1000, ge=0)
    """Registered schedules of all projects."""
    harvests: int = Field(default=32, ge=1)
    """Concurrent harvests in all workers with the same catalogue; further ones wait for their turn."""
    rejected_bytes: int = Field(default=1024**3, ge=0)
    """Bytes of rejected rows in the catalogue; above it, those of the oldest harvests are deleted."""
    egress_bytes: int = Field(default=1024**4, ge=1)
    """Bytes that feeds and tools may fetch per day."""
    egress_seconds: float = Field(default=1_000_000, gt=0)
    """Seconds that feeds and tools may fetch per day, summed over concurrent fetches."""


class Settings(IdentitySettings):
    """Settings of the gRPC service and of the Temporal workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # These two come before `host`, whose check reads them.
    auth: Literal["none", "token"] = "none"
    """Authentication of callers: `none`, or `token` for ContextTokens. Environment: CONTEXTWORKER_AUTH."""
    allow_unauthenticated: bool = False
    """Whether the service may listen beyond this machine without authentication.
    Environment: CONTEXTWORKER_ALLOW_UNAUTHENTICATED."""
    host: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - the published default address
    """Configured address of the gRPC service; see `listen_host`. Environment: WORKER_HOST."""
    port: int = Field(default=50052, ge=0, le=65535)
    """Port of the gRPC service; 0 takes a free one. Environment: WORKER_PORT."""
    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port on the same host for Connect, gRPC-Web and JSON over HTTP; 0 takes a free one. By default HTTP is off.
    Environment: WORKER_HTTP_PORT."""
    http_origins: tuple[str, ...] = ()
    """Origins of web pages that may call over HTTP from browsers, such as https://shop.example.com.
    Environment: WORKER_HTTP_ORIGINS, separated by commas or spaces."""
    module_paths: tuple[str, ...] = ()
    """Modules in addition to the entry points, as import paths `package.module:object`; the default object is `module`.
    Environment: WORKER_MODULES, separated by commas or spaces."""
    data_folder: Path = Path(".contextworker")
    """Folder of embedded databases and spooled files. Environment: CONTEXTWORKER_DATA_FOLDER."""
    max_unit_bytes: int = Field(default=50 * 1024 * 1024, ge=1024, le=2**31 - 1)
    """Maximum size in bytes of a received or sent unit. Environment: CONTEXTWORKER_MAX_UNIT_BYTES."""
    max_payload_values: int = Field(default=100_000, ge=1000)
    """Maximum values, including objects and lists, in the payload or body of a unit: each takes a kilobyte and some
    microseconds of processing. Environment: CONTEXTWORKER_MAX_PAYLOAD_VALUES."""
    body_timeout: float = Field(default=30.0, gt=0)
    """Timeout in seconds from the headers of a call to the end of its unit. Environment: CONTEXTWORKER_BODY_TIMEOUT."""
    max_bytes_in_flight: int = Field(default=512 * 1024 * 1024, ge=1024)
    """Bytes of all units that arrive at once, and the same again for units being processed.
    Environment: CONTEXTWORKER_MAX_BYTES_IN_FLIGHT."""
    max_tenant_bytes_in_flight: int = Field(default=128 * 1024 * 1024, ge=1024)
    """The same for callers of one tenant, if tokens are required.
    Environment: CONTEXTWORKER_MAX_TENANT_BYTES_IN_FLIGHT."""
    max_connection_calls: int = Field(default=1024, ge=1, le=100_000)
    """Concurrent calls and watches on one connection; a client holds back further ones.
    Environment: CONTEXTWORKER_MAX_CONNECTION_CALLS."""
    temporal_timeout: float = Field(default=10.0, gt=0)
    """Timeout in seconds of a call to the Temporal server. Environment: CONTEXTWORKER_TEMPORAL_TIMEOUT."""
    temporal_host: str = ""
    """host:port of the Temporal server if neither TEMPORAL_ADDRESS nor a profile names it; the default port is 7233.
    Environment: TEMPORAL_HOST."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """debug, info, warning or error, in any case. Environment: CONTEXTWORKER_LOG_LEVEL, or LOG_LEVEL."""
    log_format: Literal["text", "json"] = "text"
    """Format of log records: `text` for people, `json` for programs, one object per line.
    Environment: CONTEXTWORKER_LOG_FORMAT."""
    metrics_host: str = Field(default=_LOOPBACK, min_length=1)
    """Address for metrics, which anybody who reaches it may read. Environment: CONTEXTWORKER_METRICS_HOST."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port on which each process serves metrics for Prometheus at /metrics; 0 takes a free one. By default there is
    none. Environment: CONTEXTWORKER_METRICS_PORT."""
    metric_tenants: Mapping[str, str] = Field(default_factory=dict)
    """Classes of tenants, the label `tenant` of metrics: by tenant its class, or its own name; all others are `other`.
    By default metrics have no such label. In the file: `[metric_tenants]`."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of workers for gRPC health checks, on `listen_host`; 0 takes a free one. By default there is none; the gRPC
    service has them on its own port. Environment: CONTEXTWORKER_HEALTH_PORT."""
    max_cached_workflows: int = Field(default=500, ge=0)
    """Workflows that a worker keeps in memory between their tasks. Environment: CONTEXTWORKER_MAX_CACHED_WORKFLOWS."""
    max_concurrent_activities: int = Field(default=16, ge=1)
    """Concurrent activities on one task queue of a worker, in addition to those of modules that mostly wait.
    Environment: CONTEXTWORKER_MAX_CONCURRENT_ACTIVITIES."""
    ready_file: Path | None = None
    """File that exists while the process is ready, for probes that run a command; each process needs its own.
    Environment: CONTEXTWORKER_READY_FILE."""
    shutdown_delay: float = Field(default=5.0, ge=0)
    """Seconds that the service goes on as before after SIGTERM, but for its readiness, so that load balancers send
    calls elsewhere before it takes none. Ctrl-C and `dev` do without. Environment: CONTEXTWORKER_SHUTDOWN_DELAY."""
    shutdown_grace: float = Field(default=10.0, ge=0)
    """Seconds that activities and calls under way may go on once a worker, or the service after its delay, stops; what
    is not done by then is left to other processes. Environment: CONTEXTWORKER_SHUTDOWN_GRACE."""
    target_cpu_usage: float | None = Field(default=None, gt=0, le=1)
    """Share of the machine's processors, up to 1, above which a worker takes no further work; if this or
    `target_memory_usage` is set, both apply, the other with 0.8. Environment: CONTEXTWORKER_TARGET_CPU_USAGE."""
    target_memory_usage: float | None = Field(default=None, gt=0, le=1)
    """The same for the machine's memory. Environment: CONTEXTWORKER_TARGET_MEMORY_USAGE."""
    deployment_name: str = ""
    """Worker deployment for Temporal's worker versioning; workflows whose contract declares a versioning behaviour need
    it. Environment: CONTEXTWORKER_DEPLOYMENT_NAME."""
    build_id: str = ""
    """Version within the deployment; set together with `deployment_name`. Environment: CONTEXTWORKER_BUILD_ID."""
    token_secret: SecretStr | None = None
    """HMAC secret of `*:hmac-001`, the key of every project without a key of its own; at least 32 bytes in UTF-8.
    Environment only: CONTEXTWORKER_TOKEN_SECRET."""
    token_secret_file: Path | None = None
    """File with this secret; whitespace around it is stripped. Environment: CONTEXTWORKER_TOKEN_SECRET_FILE."""
    token_keys_file: Path | None = None
    """TOML file of keys by kid, in the tables `[hmac]` and `[ed25519]`. Environment: CONTEXTWORKER_TOKEN_KEYS_FILE."""
    tls_cert_file: Path | None = None
    """PEM file of the certificate of gRPC and HTTP, followed by those between it and its authority; plaintext unless
    given. It and the next two are read again when they change. Environment: CONTEXTWORKER_TLS_CERT_FILE."""
    tls_key_file: Path | None = None
    """PEM file of its private key, without a password. Environment: CONTEXTWORKER_TLS_KEY_FILE."""
    tls_client_ca_file: Path | None = None
    """PEM file of the authorities of clients: each connection then has to show a certificate, for health checks and
    reflection too. Environment: CONTEXTWORKER_TLS_CLIENT_CA_FILE."""
    require_tls: bool = False
    """Whether to refuse to listen in plaintext where other machines can connect.
    Environment: CONTEXTWORKER_REQUIRE_TLS."""
    payload_keys_file: Path | None = None
    """TOML file of the keys that payloads are encrypted with, as `docs/security.md` shows; it is read again when it has
    changed. Payloads are in clear unless given. Environment: CONTEXTWORKER_PAYLOAD_KEYS_FILE."""
    snapshot_key_file: Path | None = None
    """TOML file of the keys that seal what modules leave in Temporal's history to load it again, such as states of
    programs; all workers need the same. Without it a key is made in the data folder.
    Environment: CONTEXTWORKER_SNAPSHOT_KEY_FILE."""
    payload_storage: str = Field(default="", repr=False)
    """Where payloads above the threshold are kept, as file:///FOLDER or s3://BUCKET/PREFIX; Temporal then has only
    references to them. All payloads are sent to Temporal unless given. Environment: CONTEXTWORKER_PAYLOAD_STORAGE."""
    payload_storage_threshold: int = Field(default=256 * 1024, ge=1024, le=1024 * 1024)
    """Bytes from which on a payload is stored there. Environment: CONTEXTWORKER_PAYLOAD_STORAGE_THRESHOLD."""
    quotas: TenantQuotas = TenantQuotas()
    """Default quotas of a tenant, overridden by `quotas_file`. In the file: `[quotas]`."""
    quotas_file: Path | None = None
    """TOML file of quotas by tenant, in tables `[tenants.NAME]`; it is reloaded when it changes.
    Environment: CONTEXTWORKER_QUOTAS_FILE."""
    quotas_redis_url: SecretStr | None = None
    """Redis in which several processes share counts of calls, watches, rates and fetches, as redis://host:6379/0,
    rediss:// or unix://; without it each counts alone. Environment only: CONTEXTWORKER_QUOTAS_REDIS_URL."""
    modules: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Settings of the modules, by module name; each module checks its own. In the file: `[modules.NAME]`."""
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict[str, str])

    @property
    def settings_folder(self) -> Path:
        """The folder of the settings file, for modules' relative paths; the current folder without a file."""
        return self._folder

    @property
    def origins(self) -> Mapping[str, str]:
        """What set each setting that is not at its default: an environment variable, or the file and its key."""
        return self._origins

    @field_validator(*_REDIS_FIELDS)
    @classmethod
    def _names_a_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise PydanticCustomError("redis_url", "should be a URL such as redis://user:password@host:6379/0")
        if url is not None and not _has_port_or_none(url.get_secret_value()):
            raise PydanticCustomError("redis_url", "percent-encode special characters of the password, such as / and #")
        return url

    @field_validator("payload_storage")
    @classmethod
    def _names_a_storage(cls, url: str) -> str:
        if url and not _STORAGE.fullmatch(url):
            raise PydanticCustomError(
                "storage", "should be file:///FOLDER with an absolute path, or s3://BUCKET or s3://BUCKET/PREFIX"
            )
        return url

    @field_validator("http_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise PydanticCustomError(
                    "origin",
                    "{origin} is no origin such as https://shop.example.com or http://localhost:5173: a scheme, a host "
                    "and a port where it is not the usual one, without a path or a wildcard",
                    {"origin": repr(origin)},
                )
        return origins

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, level: Any) -> Any:
        if not isinstance(level, str):
            return level
        # Python's other level names, which deployed systems use too.
        return {"warn": "warning", "critical": "error", "fatal": "error"}.get(level.lower(), level.lower())

    @field_validator("host")
    @classmethod
    def _asks_who_calls_beyond_this_machine(cls, host: str, info: ValidationInfo) -> str:
        # This runs only if the host is set; if `auth` itself is invalid, only that is reported.
        asks = info.data.get("auth", "token") == "token" or info.data.get("allow_unauthenticated", True)
        if not asks and not is_loopback(host):
            raise PydanticCustomError("unauthenticated", _BEYOND_THIS_MACHINE)
        return host

    @property
    def listen_host(self) -> str:
        """The address that the service listens on: `host` if it is set or tokens are required, otherwise loopback."""
        return self.host if self.auth == "token" or "host" in self.model_fields_set else _LOOPBACK

    @property
    def listen_address(self) -> str:
        """`listen_host` and `port` for gRPC, an IPv6 address in brackets."""
        host = self.listen_host
        return f"[{host}]:{self.port}" if ":" in host and not host.startswith("[") else f"{host}:{self.port}"


def _has_port_or_none(url: str) -> bool:
    """Whether what comes after the host is a port: of an unquoted password it is a part."""
    try:
        parts = urlsplit(url)
        return parts.port is not None or "@" not in (parts.path + parts.query + parts.fragment)
    except ValueError:
        return False


_BEYOND_THIS_MACHINE = (
    "anybody who reaches this address could start and read everything, because tokens are not required. Set "
    "CONTEXTWORKER_AUTH=token and a key (docs/security.md), or listen on 127.0.0.1, or set "
    "CONTEXTWORKER_ALLOW_UNAUTHENTICATED=true if the network keeps others out"
)


def load_settings(
    environ: Mapping[str, str] | None = None, folder: Path | None = None, *, log_level: str = ""
) -> Settings:
    """Read the settings.

    Args:
        environ: environment; by default that of the process.
        folder: folder of DEFAULT_FILE and relative paths; by default the current folder.
        log_level: value of --log-level, which overrides all others.

    Raises:
        SettingsError: keys are unknown or values invalid; all are reported at once.
    """
    everything = os.environ if environ is None else environ
    environ = {name: value for name, value in everything.items() if not is_of_kubernetes(name, value)}
    violations, folder = _unknown_variables(environ), folder or Path.cwd()
    values, origins = _read_file(environ, folder, violations)
    for variable, field in _VARIABLES.items():
        if variable in environ and environ[variable] != "":
            text = environ[variable]
            values[field] = tuple(text.replace(",", " ").split()) if field in _LIST_FIELDS else text
            origins[field] = variable
    _take_older_names(environ, values, origins)
    _take_older_tls(environ, values, origins, violations)
    if log_level:
        values["log_level"], origins["log_level"] = log_level, "--log-level"
    settings, wrong = _validate(values)
    file = folder / (environ.get(_SETTINGS_FILE) or DEFAULT_FILE)
    settings._folder = file.absolute().parent  # pyright: ignore[reportPrivateUsage]  # it is not a setting
    settings._origins = origins  # pyright: ignore[reportPrivateUsage]  # nor is this
    violations += (
        describe_violations(wrong, Settings, origins)
        if wrong
        else [*tls_violations(settings), *identity_violations(settings)]
    )
    if violations:
        raise SettingsError(violations, settings)
    return settings


def _take_older_names(environ: Mapping[str, str], values: dict[str, Any], origins: dict[str, str]) -> None:
    """Set our variables from the deployed system's names, if ours are unset."""
    for variable, field in OLDER_NAMES.items():
        if environ.get(variable) and field not in values:
            values[field], origins[field] = environ[variable], variable
    secret = environ.get("CU_PROJECT_SECRET")
    if secret and not values.keys() & {"token_secret", "token_secret_file", "token_keys_file"}:
        values["token_secret"], origins["token_secret"] = secret, "CU_PROJECT_SECRET"
        # The check of `host` reads `auth`, and depends on which of both are set.
        values.setdefault("auth", "token")


def _validate(values: dict[str, Any]) -> tuple[Settings, ValidationError | None]:
    """Return the settings without invalid ones, and what is invalid."""
    first: ValidationError | None = None
    while True:
        try:
            return Settings.model_validate(values), first
        except ValidationError as error:
            # A value may be invalid only because another one was removed, so report the first round.
            first = first or error
            wrong = {violation["loc"][0] for violation in error.errors()}
            values = {key: value for key, value in values.items() if key not in wrong}


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {*_VARIABLES, *_CLIENT_VARIABLES, _SETTINGS_FILE, _CODEC_VARIABLE}
    violations = list[str]()
    for name in sorted(environ.keys() - known - IGNORED.keys()):
        near = nearest(name, known)
        if near:
            violations.append(f"environment variable {name} is not a setting; did you mean {near}?")
        elif name.startswith("CONTEXTWORKER_"):
            violations.append(
                f"environment variable {name} is not a setting; known settings are {', '.join(sorted(known))}"
            )
    return violations


def _read_file(
    environ: Mapping[str, str], folder: Path, violations: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    named = environ.get(_SETTINGS_FILE)
    path = folder / (named or DEFAULT_FILE)
    if not path.exists():
        if named:
            violations.append(f"{_SETTINGS_FILE} names {named}, which does not exist")
        return {}, {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        violations.append(f"{path}: not a readable TOML file: {error}")
        return {}, {}
    if values.keys() & {"token_secret", "hmac"}:
        violations.append(
            f"{path.name}: put no secrets into this file; set CONTEXTWORKER_TOKEN_SECRET, or give a file that only "
            "the service can read as token_secret_file or token_keys_file"
        )
        values = {key: value for key, value in values.items() if key not in ("token_secret", "hmac")}
    for field in _REDIS_FIELDS:
        if values.pop(field, None) is not None:
            variable = f"CONTEXTWORKER_{field.upper()}"
            violations.append(f"{path.name}: {field} may hold a password; set {variable} instead")
    return values, {key: f"{path.name}: {key}" for key in values}


OLDER_NAMES: Mapping[str, str] = {"TEMPORAL_HOST": "temporal_host", "LOG_LEVEL": "log_level"}
"""Variables of the deployed system that are used if ours is unset, with our setting, without CU_PROJECT_SECRET."""

IGNORED: Mapping[str, str] = {
    "WORKER_TENANTS": "callers' tenants come from their tokens; run workers for one tenant with --tenant",
    "WORKER_INSTANCE_NAME": "Temporal's worker identity names workers",
}
"""Variables of the deployed system that are ignored, and why."""

_OF_KUBERNETES = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_LINK = re.compile(r"(tcp|udp|sctp)://")
_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})


def is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes set a variable for a service, as in each container of the namespace.

    A service named `worker` sets WORKER_PORT=tcp://10.0.0.7:50052, which is not our port.
    """
    return bool(_OF_KUBERNETES.search(name) or (name.endswith("_PORT") and _LINK.match(value)))


def ignored_warning(environ: Mapping[str, str]) -> str:
    """Return one warning for the ignored variables of the deployed system; empty without any."""
    found = [f"{name} ({why})" for name, why in IGNORED.items() if environ.get(name)]
    return f"not used here, remove them: {'; '.join(found)}" if found else ""


def _take_older_tls(
    environ: Mapping[str, str], values: dict[str, Any], origins: dict[str, str], violations: list[str]
) -> None:
    """Set TLS from the deployed system's variables, which count only with GRPC_TLS_ENABLED."""
    if not _is_true(environ.get("GRPC_TLS_ENABLED", "")):
        return
    names = {"GRPC_TLS_SERVER_CERT": "tls_cert_file", "GRPC_TLS_SERVER_KEY": "tls_key_file"}
    asks = environ.get("GRPC_TLS_REQUIRE_CLIENT_AUTH", "")
    if _is_true(asks or "true"):
        names["GRPC_TLS_CA_CERT"] = "tls_client_ca_file"
    for variable, field in names.items():
        if environ.get(variable) and field not in values:
            values[field], origins[field] = environ[variable], variable
    # Listening in plaintext, or letting everybody connect, would expose what they should protect.
    for variable, field in names.items():
        needed = variable != "GRPC_TLS_CA_CERT" or bool(asks)
        if needed and field not in values:
            what = "GRPC_TLS_REQUIRE_CLIENT_AUTH" if variable == "GRPC_TLS_CA_CERT" else "GRPC_TLS_ENABLED"
            violations.append(f"{what} is set, but {variable} names no file; set it, or CONTEXTWORKER_{field.upper()}")


def _is_true(text: str) -> bool:
    return text.strip().lower() in _TRUE


def tls_violations(settings: Settings) -> list[str]:
    """What of the settings of TLS does not go together."""
    has_cert, has_key = settings.tls_cert_file is not None, settings.tls_key_file is not None
    if has_cert != has_key:
        return ["tls_cert_file and tls_key_file go together; set both or neither"]
    if has_cert:
        return []
    if settings.tls_client_ca_file is not None:
        return ["tls_client_ca_file needs TLS; set tls_cert_file and tls_key_file too"]
    if settings.require_tls and not is_loopback(settings.listen_host):
        return [
            f"require_tls is set, and the service would listen on {settings.listen_host} in plaintext; set "
            "tls_cert_file and tls_key_file (docs/how-to/tls.md), or listen on 127.0.0.1"
        ]
    return []


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that a variable probably means: one edit away, or one more per six letters; else empty."""
    best = ""
    fewest = len(name)
    for each in sorted(known):
        allowed = 1 + len(each.partition("_")[2]) // 6
        if each != name and abs(len(each) - len(name)) <= allowed:
            edits = _edits(name.upper(), each)
            if edits <= allowed and edits < fewest:
                best, fewest = each, edits
    return best


def _edits(one: str, other: str) -> int:
    """Return the number of letters to add, drop, change or swap with the next (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            edits = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                edits = min(edits, before[j - 2] + 1)
            row.append(edits)
        before, last = last, row
    return last[-1]
