"""Checks of the machine itself: versions, settings, modules, files, disk, and ports to listen on."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ..errors import SettingsError
from ..modules.registry import WorkerRegistry
from ..settings import Settings, ignored_warning
from .findings import Finding, fail, ok, skip, warn
from .run import Machine, in_thread

__all__ = [
    "check_data_folder",
    "check_files",
    "check_identity",
    "check_modules",
    "check_payload_storage",
    "check_ports",
    "check_quotas_redis",
    "check_settings",
    "check_versions",
]

_PACKAGES = ("contextworker", "temporalio", "grpcio", "protobuf", "betterproto2")
_SHOWN_TEMPORAL = re.compile(r"ADDRESS|NAMESPACE|PROFILE|CONFIG_FILE|TLS|TLS_(CLIENT_CERT|CLIENT_KEY|SERVER_CA)_PATH")
"""Variables of Temporal's, after their prefix, whose values are no secrets."""
_LITTLE, _TOO_LITTLE = 2 * 1024**3, 128 * 1024**2
"""Free bytes of the data folder's disk below which there is a warning, and a failure."""
_LISTEN = "0A"
"""The state LISTEN in the kernel's tables of sockets."""
_OURS = re.compile(rb"(?:^|[\0/])contextworker\0|\0contextunity\.(?:worker|modules)\b")
"""In a command line, whose words end with a NUL."""


def check_versions(_machine: Machine) -> list[Finding]:
    """Check what is installed."""
    from betterproto2_codec._schema import IS_NATIVE

    findings = [ok("version.python", platform.python_version(), f"{platform.system()} {platform.machine()}")]
    for name in _PACKAGES:
        try:
            findings.append(ok(f"version.{name}", version(name)))
        except PackageNotFoundError:
            fix = "install the wheel, which brings what it needs"
            findings.append(fail(f"version.{name}", "is not installed as a package", fix=fix))
    if IS_NATIVE:
        return [*findings, ok("version.codec", "compiled")]
    if os.environ.get("CONTEXTWORKER_PURE_PYTHON"):
        fix = "unset CONTEXTWORKER_PURE_PYTHON"
    else:
        fix = "install the wheel for this Python, or build it with a C compiler and Python's headers"
    return [*findings, warn("version.codec", "not compiled", "messages take several times as long", fix=fix)]


def check_settings(machine: Machine) -> list[Finding]:
    """Check the settings as a start does, and return each with its source; secrets are masked."""
    fix = "correct it where it is set; docs/settings.md lists all settings"
    findings = [fail("settings", fault, fix=fix) for fault in machine.faults]
    if ignored := ignored_warning(machine.environ):
        findings.append(warn("settings", ignored, fix="remove them"))
    settings = machine.settings
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name in ("modules", "quotas", "metric_tenants") and name not in settings.origins:
            continue
        detail = f"from {settings.origins[name]}" if name in settings.origins else "default"
        if name == "host" and settings.listen_host != value:
            detail += f"; without tokens it is {settings.listen_host}"
        findings.append(ok(f"setting.{name}", _shown(name, value), detail))
    for name, text in sorted(machine.environ.items()):
        kind, _, rest = name.partition("_")
        if (kind == "TEMPORAL" and name != "TEMPORAL_HOST") or name == "CONTEXTWORKER_TOKEN":
            shown = text if _SHOWN_TEMPORAL.fullmatch(rest) and kind == "TEMPORAL" else "set, not shown"
            findings.append(ok(f"setting.{name}", shown, "from the environment"))
    return findings


def _shown(name: str, value: Any) -> str:
    if value is None or value == () or value == "":
        return "none"
    if isinstance(value, SecretStr):
        return "set, not shown"
    if name == "modules":
        # What is a secret in there only the modules know.
        return ", ".join(f"{module}.{key}" for module, section in value.items() for key in section) or "none"
    if name == "quotas":
        return ", ".join(f"{key} = {getattr(value, key)}" for key in sorted(value.model_fields_set)) or "none"
    if name in ("http_origins", "jwt_audience", "module_paths"):
        return ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if name == "metric_tenants":
        return ", ".join(f"{tenant} = {group}" for tenant, group in value.items())
    return str(value)


async def check_modules(machine: Machine) -> list[Finding]:
    """Check that all modules load, match their contracts, and have valid settings."""
    registry = await machine.registry()
    if not isinstance(registry, WorkerRegistry):
        return [fail("modules", fault, fix="no service or worker starts with it") for fault in registry.faults]
    if not registry.modules:
        return [warn("modules", "none", fix="install a package with a module, or name one in WORKER_MODULES")]
    return [
        ok(f"module.{name}", f"{len(module.config.workflows)} workflows, {len(module.config.activities)} activities")
        for name, module in registry.modules.items()
    ]


async def check_files(machine: Machine) -> list[Finding]:
    """Check that the files of the settings can be read, are valid, and that secrets are only the service's."""
    settings = machine.settings
    findings = list[Finding]()
    for read, names in _READERS.items():
        paths: dict[str, Path | None] = {name: getattr(settings, name) for name in names}
        used = {name: path for name, path in paths.items() if path is not None}
        findings += [skip(f"file.{name}", "not set") for name in names if name not in used]
        # Tokens may be signed with a secret of the environment, without any file.
        needs_key = read is _read_token_keys and settings.auth == "token"
        faults = await in_thread(functools.partial(_faults, read, settings)) if used or needs_key else ()
        own: dict[str, list[str]] = {name: [] for name in used}
        for fault in faults:
            of = next((name for name, path in used.items() if str(path) in fault or name in fault), None)
            of = of or next(iter(used), None)
            if of is None:
                fix = "docs/security.md shows how to make keys; workers need none"
                findings.append(warn("file.token_keys_file", fault, "a service does not start without", fix=fix))
            else:
                own[of].append(fault)
        for name, path in used.items():
            findings += await in_thread(functools.partial(_file, name, path, own[name]))
    return findings


def _file(name: str, path: Path, faults: Sequence[str]) -> list[Finding]:
    check = f"file.{name}"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb"):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return [fail(check, f"{path}: {reason}", fix=f"create it, or let the user {os.geteuid()} read it")]
    findings = [fail(check, fault, fix="correct the file") for fault in faults]
    shown = f"{path} (mode {mode:o})"
    if name in _SECRET_FILES and mode & 0o077:
        everybody = bool(mode & 0o007)
        what = f"{'all users' if everybody else 'its group'} may {'read' if mode & 0o044 else 'change'} this secret"
        make = fail if everybody else warn
        fix = f"chmod 600 {path}; of a mounted secret, set its mode to 0400"
        return [*findings, make(check, shown, what, fix=fix)]
    if mode & 0o002:
        return [*findings, fail(check, shown, "all users may change it", fix=f"chmod o-w {path}")]
    return findings or [ok(check, shown)]


def _faults(read: Callable[[Settings], object], settings: Settings) -> tuple[str, ...]:
    try:
        read(settings)
    except SettingsError as error:
        return error.faults
    return ()


def _read_token_keys(settings: Settings) -> object:
    from ..token_keys import load_keyring

    return load_keyring(settings)


def _read_payload_keys(settings: Settings) -> object:
    from ..temporal.client import payload_codec

    return payload_codec(settings)


def _read_snapshot_keys(settings: Settings) -> object:
    from ..key_files import read_key_file

    path = settings.snapshot_key_file
    return None if path is None else read_key_file(path, "snapshot_key_file", "seals")


def _read_tls(settings: Settings) -> object:
    from ..server import open_tls

    return open_tls(settings)


def _read_quotas(settings: Settings) -> object:
    from ..quotas import Quotas

    return Quotas(settings.quotas, settings.quotas_file)


_READERS: Mapping[Callable[[Settings], object], Sequence[str]] = {
    _read_token_keys: ("token_secret_file", "token_keys_file"),
    _read_payload_keys: ("payload_keys_file",),
    _read_snapshot_keys: ("snapshot_key_file",),
    _read_tls: ("tls_cert_file", "tls_key_file", "tls_client_ca_file"),
    _read_quotas: ("quotas_file",),
}
"""The settings that name files, by what reads them at a start."""
_SECRET_FILES = ("token_secret_file", "token_keys_file", "payload_keys_file", "snapshot_key_file", "tls_key_file")


async def check_identity(machine: Machine) -> list[Finding]:
    """Check the keys of JWTs and the lists of revoked tokens, as a service does when it starts."""
    from ..auth import open_jwts

    settings = machine.settings
    if settings.auth != "token":
        why = "tokens are not required"
        return [skip("identity.jwt", why), skip("identity.revocations", why)]
    findings = list[Finding]()
    fix = "correct the settings or let this machine reach it; a service does not start without"
    if settings.jwt_issuer:
        try:
            async with open_jwts(settings):
                findings.append(ok("identity.jwt", f"keys of {settings.jwt_issuer}"))
        except SettingsError as error:
            findings += [fail("identity.jwt", fault, fix=fix) for fault in error.faults]
    else:
        findings.append(skip("identity.jwt", "jwt_issuer is not set"))
    if not settings.has_revocations:
        return [*findings, skip("identity.revocations", "no list of revoked tokens is set")]
    try:
        from ..revocations import open_revocations

        async with open_revocations(settings):
            return [*findings, ok("identity.revocations", "can be read")]
    except SettingsError as error:
        return [*findings, *(fail("identity.revocations", fault, fix=fix) for fault in error.faults)]


async def check_payload_storage(machine: Machine) -> list[Finding]:
    """Check that large payloads can be stored: a folder is written to, a bucket is not asked."""
    from ..temporal.client import payload_storage

    check, where = "payload_storage", machine.settings.payload_storage
    if not where:
        return [skip(check, "not set; payloads over 2 MiB are rejected")]
    try:
        await in_thread(functools.partial(payload_storage, machine.settings))
    except SettingsError as error:
        fix = "create it, or correct CONTEXTWORKER_PAYLOAD_STORAGE"
        return [fail(check, fault, fix=fix) for fault in error.faults]
    return [ok(check, where, "" if where.startswith("file:") else "the bucket is not asked")]


async def check_quotas_redis(machine: Machine) -> list[Finding]:
    """Check that the Redis of shared quotas answers."""
    url = machine.settings.quotas_redis_url
    if url is None:
        return [skip("quotas.redis", "CONTEXTWORKER_QUOTAS_REDIS_URL is not set; each process counts quotas alone")]
    try:
        from redis.exceptions import RedisError

        from ..shared_quotas import close_redis, open_redis
    except ModuleNotFoundError:
        return [fail("quotas.redis", "its client is not installed", fix="pip install 'contextworker[redis]'")]
    redis: Any = open_redis(url.get_secret_value())
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        fix = "start it, or correct CONTEXTWORKER_QUOTAS_REDIS_URL; until then each process counts quotas alone"
        return [fail("quotas.redis", f"does not answer: {type(error).__name__}", str(error), fix=fix)]
    finally:
        await close_redis(redis)
    return [ok("quotas.redis", "answers")]


def check_data_folder(machine: Machine) -> list[Finding]:
    """Check that the data folder can be written, and that its disk has space."""
    folder = machine.settings.data_folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    fix = "let this user write it, or choose another with CONTEXTWORKER_DATA_FOLDER"
    if not there.is_dir():
        return [fail("disk.data_folder", f"{there} is a file", fix=fix)]
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return [fail("disk.data_folder", f"{there} cannot be written: {reason}", fix=fix)]
    made = "" if there == folder else "it is created when it is needed"
    free = shutil.disk_usage(there).free
    shown = f"{free / 1024**3:,.1f} GiB free"
    space = ok("disk.space", shown)
    if free < _LITTLE:
        make = fail if free < _TOO_LITTLE else warn
        space = make("disk.space", shown, f"the disk of {there}", fix="delete what is not needed, or use another disk")
    return [ok("disk.data_folder", f"{folder} can be written", made), space]


def check_ports(machine: Machine) -> list[Finding]:
    """Check whether the ports to listen on are free, and what has those that are not."""
    settings = machine.settings
    wanted: dict[str, tuple[str, int | None]] = {
        "port": (settings.listen_host, settings.port),
        "http_port": (settings.listen_host, settings.http_port),
        "metrics_port": (settings.metrics_host, settings.metrics_port),
        "health_port": (settings.listen_host, settings.health_port),
    }
    numbers = [port for _, port in wanted.values() if port]
    findings = list[Finding]()
    for name, (host, port) in wanted.items():
        if port is None:
            findings.append(skip(f"port.{name}", "not set"))
        elif port == 0:
            findings.append(ok(f"port.{name}", "any free port"))
        elif numbers.count(port) > 1:
            findings.append(fail(f"port.{name}", f"{port} is set twice", fix="give each setting a port of its own"))
        else:
            findings.append(_port(name, host, port))
    return findings


def _port(name: str, host: str, port: int) -> Finding:
    check, fix = f"port.{name}", f"stop what listens there, or choose another with {name}"
    host = host.removeprefix("[").removesuffix("]")
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            # Like servers, so that connections of a stopped one that are still ending do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except PermissionError:
        return fail(check, f"{port} may not be used by this user", fix=f"choose one above 1023 with {name}")
    except OSError as error:
        owner = _owner(port)
        if owner is None:
            reason = (error.strerror or str(error)).lower()
            return warn(check, f"{port} cannot be taken: {reason}", "by whom, only root sees", fix=fix)
        pid, command = owner
        program = _program(pid)
        if _OURS.search(command):
            return ok(check, f"{port} is used by contextworker", f"{program}, process {pid}")
        return fail(check, f"{port} is used by {program}", f"process {pid}", fix=fix)
    return ok(check, f"{port} is free", f"on {host}")


def _program(pid: int) -> str:
    # Not its arguments: they may hold secrets.
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "a program"


def _owner(port: int) -> tuple[int, bytes] | None:
    """Return the process that listens on a port, and its command; None if it cannot be seen."""
    inodes = set[str]()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(each) in inodes for each in (process / "fd").iterdir()):
                return int(process.name), (process / "cmdline").read_bytes()
        except OSError:
            # It ended meanwhile, or is another user's.
            continue
    return None
