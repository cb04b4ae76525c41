"""The settings of a process, read once from the environment and a TOML file into one frozen object.

An environment variable wins over the file. How the Temporal server is reached is not among them: the SDK's own
standard settings (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS…, profiles) say that.
Variables of the deployed system that mean the same are taken, those of Kubernetes passed over, and slips named.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import tempfile
import tomllib
from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import Any, Literal

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

__all__ = [
    "DEFAULT_FILE",
    "IGNORED",
    "OLDER_NAMES",
    "Settings",
    "TenantQuotas",
    "data_folder_error",
    "describe_violations",
    "ignored_warning",
    "is_loopback",
    "is_of_kubernetes",
    "load_settings",
    "naming_data_folder",
    "nearest",
    "tls_violation",
]

DEFAULT_FILE = "contextworker.toml"
"""Read from the current folder where CONTEXTWORKER_SETTINGS names no other file, and where it exists."""

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
    "CONTEXTWORKER_LOG_FORMAT": "log_format",
    "CONTEXTWORKER_LOG_LEVEL": "log_level",
    "CONTEXTWORKER_MAX_CACHED_WORKFLOWS": "max_cached_workflows",
    "CONTEXTWORKER_MAX_CONNECTION_CALLS": "max_connection_calls",
    "CONTEXTWORKER_MAX_CONCURRENT_ACTIVITIES": "max_concurrent_activities",
    "CONTEXTWORKER_QUOTAS_FILE": "quotas_file",
    "CONTEXTWORKER_QUOTAS_REDIS_URL": "quotas_redis_url",
    "CONTEXTWORKER_TARGET_CPU_USAGE": "target_cpu_usage",
    "CONTEXTWORKER_TARGET_MEMORY_USAGE": "target_memory_usage",
    "CONTEXTWORKER_TOKEN_KEYS_FILE": "token_keys_file",
    "CONTEXTWORKER_TOKEN_SECRET": "token_secret",
    "CONTEXTWORKER_TOKEN_SECRET_FILE": "token_secret_file",
}
_SETTINGS_FILE = "CONTEXTWORKER_SETTINGS"
_CLIENT_VARIABLES = frozenset({"CONTEXTWORKER_TARGET", "CONTEXTWORKER_TENANT", "CONTEXTWORKER_TOKEN"})
"""What the commands that call a running service read; no settings of a service or worker."""
_CODEC_VARIABLE = "CONTEXTWORKER_PURE_PYTHON"
"""What the codec reads when it is imported, long before there are settings."""
_LIST_FIELDS = frozenset({"http_origins", "module_paths"})
_SECRET_FIELDS = frozenset({"quotas_redis_url", "token_secret"})
_LOOPBACK = "127.0.0.1"
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+")


class TenantQuotas(BaseModel):
    """What one tenant may take: of a service that asks who calls, and of workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    starts_per_second: float = Field(default=10, gt=0)
    """Tasks and programs that may be started a second, in the long run."""
    starts_burst: int = Field(default=100, ge=1)
    """How many of them at once, after a while without any."""
    open_tasks: int = Field(default=10_000, ge=1)
    """Tasks of one workflow_type that have not ended."""
    programs: int = Field(default=100, ge=1)
    """Programs that have not ended, whether somebody waits for them or not."""
    running_programs: int = Field(default_factory=lambda: max(4, 2 * (os.cpu_count() or 1)), ge=1)
    """Of them that Temporal has at once, for each process of the service; further ones wait there for their turn."""
    concurrent_calls: int = Field(default=100, ge=1)
    """Calls but watches under way at once, of callers with the same tenants."""
    watches: int = Field(default=200, ge=1)
    """Watches under way at once, of callers with the same tenants."""
    schedules: int = Field(default=1000, ge=0)
    """Schedules registered, of all projects."""
    harvests: int = Field(default=32, ge=1)
    """Harvests under way at once, of all workers with the same catalogue; further ones wait for their turn."""
    rejected_bytes: int = Field(default=1024**3, ge=0)
    """Bytes of rejected rows that the catalogue keeps; beyond it those of the oldest harvests are deleted."""
    egress_bytes: int = Field(default=1024**4, ge=1)
    """Bytes that feeds and tools may fetch a day."""
    egress_seconds: float = Field(default=1_000_000, gt=0)
    """Seconds that feeds and tools may spend on fetching a day, those of fetches that run at once added up."""


class Settings(BaseModel):
    """Settings of the gRPC service and of the Temporal workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # The two stand before `host`, whose check looks at them.
    auth: Literal["none", "token"] = "none"
    """Whether callers are asked who they are: `none`, or `token` for ContextTokens. Environment: CONTEXTWORKER_AUTH."""
    allow_unauthenticated: bool = False
    """Whether the service may listen beyond this machine without asking who calls.
    Environment: CONTEXTWORKER_ALLOW_UNAUTHENTICATED."""
    host: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - the published default address
    """Address that the gRPC service is told to listen on; see `listen_host`. Environment: WORKER_HOST."""
    port: int = Field(default=50052, ge=0, le=65535)
    """Port that the gRPC service listens on; 0 takes a free one. Environment: WORKER_PORT."""
    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the same host for Connect, gRPC-Web and JSON over HTTP; 0 takes a free one, and none is opened unless it
    is set. Environment: WORKER_HTTP_PORT."""
    http_origins: tuple[str, ...] = ()
    """Origins of pages that may call over HTTP from browsers, such as https://shop.example.com.
    Environment: WORKER_HTTP_ORIGINS, separated by commas or blanks."""
    module_paths: tuple[str, ...] = ()
    """Modules beside those of the entry points, as import paths `package.module:object`; the object is `module` where
    none is named. Environment: WORKER_MODULES, separated by commas or blanks."""
    data_folder: Path = Path(".contextworker")
    """Folder of embedded databases and spooled files. Environment: CONTEXTWORKER_DATA_FOLDER."""
    max_unit_bytes: int = Field(default=50 * 1024 * 1024, ge=1024, le=2**31 - 1)
    """Size in bytes of the largest unit taken or sent. Environment: CONTEXTWORKER_MAX_UNIT_BYTES."""
    max_payload_values: int = Field(default=100_000, ge=1000)
    """Values, objects and lists included, that the payload or the body of a unit may hold: each takes a kilobyte and
    some microseconds while it is worked on. Environment: CONTEXTWORKER_MAX_PAYLOAD_VALUES."""
    body_timeout: float = Field(default=30.0, gt=0)
    """Seconds from the headers of a call to the end of its unit. Environment: CONTEXTWORKER_BODY_TIMEOUT."""
    max_bytes_in_flight: int = Field(default=512 * 1024 * 1024, ge=1024)
    """Bytes of all units that are on their way at once, and as many of those that are worked on.
    Environment: CONTEXTWORKER_MAX_BYTES_IN_FLIGHT."""
    max_tenant_bytes_in_flight: int = Field(default=128 * 1024 * 1024, ge=1024)
    """The same for callers of one tenant, where callers show tokens.
    Environment: CONTEXTWORKER_MAX_TENANT_BYTES_IN_FLIGHT."""
    max_connection_calls: int = Field(default=1024, ge=1, le=100_000)
    """Calls and watches under way at once on one connection; a client holds back what is beyond.
    Environment: CONTEXTWORKER_MAX_CONNECTION_CALLS."""
    temporal_timeout: float = Field(default=10.0, gt=0)
    """Seconds that a call to the Temporal server may take. Environment: CONTEXTWORKER_TEMPORAL_TIMEOUT."""
    temporal_host: str = ""
    """host:port of the Temporal server where neither TEMPORAL_ADDRESS nor a profile names it; the port is 7233 unless
    given. Environment: TEMPORAL_HOST."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """debug, info, warning or error, in any case. Environment: CONTEXTWORKER_LOG_LEVEL, or LOG_LEVEL."""
    log_format: Literal["text", "json"] = "text"
    """How log records are written: `text` for people, `json` for programs, one object a line.
    Environment: CONTEXTWORKER_LOG_FORMAT."""
    max_cached_workflows: int = Field(default=500, ge=0)
    """Workflows that a worker keeps in memory between their tasks. Environment: CONTEXTWORKER_MAX_CACHED_WORKFLOWS."""
    max_concurrent_activities: int = Field(default=16, ge=1)
    """Activities that run at once on one task queue of a worker, beside those of modules that mostly wait.
    Environment: CONTEXTWORKER_MAX_CONCURRENT_ACTIVITIES."""
    target_cpu_usage: float | None = Field(default=None, gt=0, le=1)
    """Part of the machine's processors, up to 1, beyond which a worker takes no further work; where this or
    `target_memory_usage` is set, both count, the other one as 0.8. Environment: CONTEXTWORKER_TARGET_CPU_USAGE."""
    target_memory_usage: float | None = Field(default=None, gt=0, le=1)
    """The same for the machine's memory. Environment: CONTEXTWORKER_TARGET_MEMORY_USAGE."""
    deployment_name: str = ""
    """Worker deployment that Temporal's worker versioning knows this worker by; workflows whose contract declares a
    versioning behaviour need it. Environment: CONTEXTWORKER_DEPLOYMENT_NAME."""
    build_id: str = ""
    """Version within the deployment; set together with `deployment_name`. Environment: CONTEXTWORKER_BUILD_ID."""
    token_secret: SecretStr | None = None
    """HMAC secret of `*:hmac-001`, the key of every project that has none of its own; in UTF-8 32 bytes or more.
    Environment alone: CONTEXTWORKER_TOKEN_SECRET."""
    token_secret_file: Path | None = None
    """File that holds this secret; blanks around it are left out. Environment: CONTEXTWORKER_TOKEN_SECRET_FILE."""
    token_keys_file: Path | None = None
    """TOML file of keys by kid, in the tables `[hmac]` and `[ed25519]`. Environment: CONTEXTWORKER_TOKEN_KEYS_FILE."""
    quotas: TenantQuotas = TenantQuotas()
    """What each tenant may take, unless the file of `quotas_file` says otherwise. In the file: `[quotas]`."""
    quotas_file: Path | None = None
    """TOML file of quotas by tenant, in tables `[tenants.NAME]`; it is read again when it has changed.
    Environment: CONTEXTWORKER_QUOTAS_FILE."""
    quotas_redis_url: SecretStr | None = None
    """Redis in which several processes count calls, watches, rates and what is fetched together, as redis://host:6379/0,
    rediss:// or unix://; each counts for itself unless given. Environment alone: CONTEXTWORKER_QUOTAS_REDIS_URL."""
    modules: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Settings of the modules, by module name; each module checks its own. In the file: `[modules.NAME]`."""
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def settings_folder(self) -> Path:
        """The folder of the settings file, from which modules read relative paths; the current one without a file."""
        return self._folder

    @field_validator("quotas_redis_url")
    @classmethod
    def _names_a_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise PydanticCustomError("redis_url", "should be a URL such as redis://user:password@host:6379/0")
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
        # Python's other names for them, which deployed systems use as well.
        return {"warn": "warning", "critical": "error", "fatal": "error"}.get(level.lower(), level.lower())

    @field_validator("host")
    @classmethod
    def _asks_who_calls_beyond_this_machine(cls, host: str, info: ValidationInfo) -> str:
        # Only a host that is set comes by here; where `auth` itself is wrong, that is what is told.
        asks = info.data.get("auth", "token") == "token" or info.data.get("allow_unauthenticated", True)
        if not asks and not is_loopback(host):
            raise PydanticCustomError("unauthenticated", _BEYOND_THIS_MACHINE)
        return host

    @property
    def listen_host(self) -> str:
        """The address that the service listens on: `host` where it is set or callers show tokens, else loopback."""
        return self.host if self.auth == "token" or "host" in self.model_fields_set else _LOOPBACK

    @property
    def listen_address(self) -> str:
        """`listen_host` and `port` as gRPC takes them, an IPv6 address in brackets."""
        host = self.listen_host
        return f"[{host}]:{self.port}" if ":" in host and not host.startswith("[") else f"{host}:{self.port}"


_BEYOND_THIS_MACHINE = (
    "whoever reaches this address could start and read everything, for callers are not asked who they are. Set "
    "CONTEXTWORKER_AUTH=token and a key (docs/security.md), or listen on 127.0.0.1, or set "
    "CONTEXTWORKER_ALLOW_UNAUTHENTICATED=true where the network keeps others out"
)


def is_loopback(host: str) -> bool:
    """Says whether an address to listen on is reached from this machine alone; names but localhost are not."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def load_settings(
    environ: Mapping[str, str] | None = None, folder: Path | None = None, *, log_level: str = ""
) -> Settings:
    """Reads the settings.

    Args:
        environ: the environment; that of the process unless given.
        folder: where DEFAULT_FILE and relative paths are looked up; the current folder unless given.
        log_level: as --log-level gives it, which wins over all others.

    Raises:
        SettingsError: a key is unknown or a value wrong; all of them are named at once.
    """
    everything = os.environ if environ is None else environ
    environ = {name: value for name, value in everything.items() if not is_of_kubernetes(name, value)}
    violations, folder = _unknown_variables(environ), folder or Path.cwd()
    violations += [violation] if (violation := tls_violation(environ)) else []
    values, origins = _read_file(environ, folder, violations)
    for variable, field in _VARIABLES.items():
        if variable in environ and environ[variable] != "":
            text = environ[variable]
            values[field] = tuple(text.replace(",", " ").split()) if field in _LIST_FIELDS else text
            origins[field] = variable
    _take_older_names(environ, values, origins)
    if log_level:
        values["log_level"], origins["log_level"] = log_level, "--log-level"
    settings, wrong = _validate(values)
    file = folder / (environ.get(_SETTINGS_FILE) or DEFAULT_FILE)
    settings._folder = file.absolute().parent  # pyright: ignore[reportPrivateUsage]  # it is no setting of its own
    violations += describe_violations(wrong, origins) if wrong else []
    if violations:
        raise SettingsError(violations, settings)
    return settings


def _take_older_names(environ: Mapping[str, str], values: dict[str, Any], origins: dict[str, str]) -> None:
    """Takes what the deployed system calls by other names, where ours is unset."""
    for variable, field in OLDER_NAMES.items():
        if environ.get(variable) and field not in values:
            values[field], origins[field] = environ[variable], variable
    secret = environ.get("CU_PROJECT_SECRET")
    if secret and not values.keys() & {"token_secret", "token_secret_file", "token_keys_file"}:
        values["token_secret"], origins["token_secret"] = secret, "CU_PROJECT_SECRET"
        # The model's `host` looks at `auth`, and both whether they were set.
        values.setdefault("auth", "token")


def _validate(values: dict[str, Any]) -> tuple[Settings, ValidationError | None]:
    """Returns the settings without those that are wrong, and what is wrong."""
    first: ValidationError | None = None
    while True:
        try:
            return Settings.model_validate(values), first
        except ValidationError as error:
            # A value may be wrong only for want of one that was left out before; so all is told of the first round.
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
                f"environment variable {name} is not a setting; those known are {', '.join(sorted(known))}"
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
        violations.append(f"{path}: not a TOML file that can be read: {error}")
        return {}, {}
    if values.keys() & {"token_secret", "hmac"}:
        violations.append(
            f"{path.name}: no secret may stand in this file; set CONTEXTWORKER_TOKEN_SECRET, or name a file that only "
            "the service can read with token_secret_file or token_keys_file"
        )
        values = {key: value for key, value in values.items() if key not in ("token_secret", "hmac")}
    if "quotas_redis_url" in values:
        del values["quotas_redis_url"]
        violations.append(
            f"{path.name}: quotas_redis_url may hold a password; set CONTEXTWORKER_QUOTAS_REDIS_URL instead"
        )
    return values, {key: f"{path.name}: {key}" for key in values}


def describe_violations(error: ValidationError, origins: Mapping[str, str], prefix: str = "") -> list[str]:
    """One line for each wrong value of a ValidationError: where it stands, what it is, what it should be."""
    lines = list[str]()
    for violation in error.errors(include_url=False):
        location = [str(part) for part in violation["loc"]]
        where = origins.get(location[0], f"{prefix}{location[0]}") if location else prefix.rstrip(".")
        where = ".".join([where, *location[1:]])
        if violation["type"] == "extra_forbidden":
            lines.append(f"{where}: there is no such setting")
        elif violation["type"] == "missing":
            lines.append(f"{where}: is required")
        elif location and location[0] in _SECRET_FIELDS:
            lines.append(f"{where}: {violation['msg'][0].lower()}{violation['msg'][1:]}")
        else:
            lines.append(f"{where} = {violation['input']!r}: {violation['msg'][0].lower()}{violation['msg'][1:]}")
    return lines


OLDER_NAMES: Mapping[str, str] = {"TEMPORAL_HOST": "temporal_host", "LOG_LEVEL": "log_level"}
"""Variables of the deployed system that are taken where ours is unset, with our setting; beside CU_PROJECT_SECRET."""

IGNORED: Mapping[str, str] = {
    "WORKER_TENANTS": "callers' tenants come from their tokens; run workers of one tenant's own with --tenant",
    "WORKER_INSTANCE_NAME": "workers are named by Temporal's own identity",
}
"""Variables of the deployed system that mean nothing here, and why."""

_OF_KUBERNETES = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_LINK = re.compile(r"(tcp|udp|sctp)://")
_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})


def is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes made a variable for a service, as it does in each container of the namespace.

    A service called `worker` gives WORKER_PORT=tcp://10.0.0.7:50052, which is no port of ours.
    """
    return bool(_OF_KUBERNETES.search(name) or (name.endswith("_PORT") and _LINK.match(value)))


def ignored_warning(environ: Mapping[str, str]) -> str:
    """One warning for the variables of the deployed system that mean nothing here; empty where there are none."""
    found = [f"{name} ({why})" for name, why in IGNORED.items() if environ.get(name)]
    return f"not used here, remove them: {'; '.join(found)}" if found else ""


def tls_violation(environ: Mapping[str, str]) -> str:
    """What is wrong where TLS is asked for: to listen in plaintext instead would give away what it was to hide."""
    if environ.get("GRPC_TLS_ENABLED", "").strip().lower() not in _TRUE:
        return ""
    return (
        "GRPC_TLS_ENABLED is set, but the service has no TLS listener yet and would listen in plaintext; unset it, and "
        "have a proxy in front of it end TLS"
    )


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that a variable is a slip of: one edit away, or one more for each six letters; else empty."""
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
    """Letters to add, drop, change or swap with the next (optimal string alignment)."""
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


def data_folder_error(folder: Path, error: OSError) -> SettingsError:
    """The error for a folder that cannot be made, or not be written to."""
    reason = (error.strerror or str(error)).lower()
    return SettingsError(
        [f"cannot write to the data folder {folder}: {reason}; choose another with CONTEXTWORKER_DATA_FOLDER"]
    )


@contextlib.contextmanager
def naming_data_folder(folder: Path) -> Generator[None, None, None]:
    """Names the setting where what is done here fails because of the folder; other errors pass as they are.

    The folder is not tried beforehand: a worker whose modules keep nothing needs none.

    Raises:
        SettingsError: the folder cannot be made, or not be written to.
    """
    try:
        yield
    except Exception as error:
        write_error = _write_error(folder) if _is_about(folder, error) else None
        if write_error is None:
            raise
        raise data_folder_error(folder, write_error) from error


def _is_about(folder: Path, error: BaseException | None) -> bool:
    """Says whether the system refused a path below the folder, or one on the way to it."""
    folder = folder.absolute()
    while error is not None:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            refused = Path(error.filename).absolute()
            if refused.is_relative_to(folder) or folder.is_relative_to(refused):
                return True
        error = error.__cause__
    return False


def _write_error(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None
