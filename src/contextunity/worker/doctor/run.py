"""Run the checks of a machine at once, each bounded in time, so that one that fails or hangs hides no other."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import SecretStr

from contextunity.core.errors import ContextUnityError

from ..errors import RegistryError, SettingsError, WorkerError
from ..modules.discovery import discover
from ..modules.registry import WorkerRegistry
from ..setting_errors import without_userinfo
from ..settings import Settings, load_settings
from .findings import Finding, fail, skip

if TYPE_CHECKING:
    import grpc
    from temporalio.client import Client

    from ..client import SyncWorkerClient

__all__ = ["Check", "Machine", "Service", "in_thread", "run_checks"]

T = TypeVar("T")
_MODULES_TIMEOUT = 60.0
"""Seconds that importing all modules may take; it is code of others."""
_PART = 0.8
"""Share of a check's time that one connection in it may take."""
_SECRET_VARIABLES = re.compile(
    r"CONTEXTWORKER_(TOKEN|TOKEN_SECRET|QUOTAS_REDIS_URL|REVOKED_TOKENS_REDIS_URL)|CU_PROJECT_SECRET"
    r"|TEMPORAL_(API_KEY|CODEC_AUTH|TLS_CLIENT_KEY_DATA|GRPC_META_.*)"
)
_SECRET_KEYS = re.compile(r"secret|password|token|key|header", re.IGNORECASE)
"""Names of settings of modules whose texts may be secrets."""
_PASSWORD = re.compile(r"(?<=://)[^/@\s:]*:([^/@\s]+)(?=@)")
_SHORTEST_SECRET = 6
"""Shorter texts are words that occur everywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """How to reach the service that is examined.

    Attributes:
        target: host:port, possibly after a scheme.
        is_named: whether an option or a variable names it; otherwise it is only the usual place.
        address: host and port of the connection.
        has_tls: whether the connection is encrypted.
        open_client: opens a client with the caller's token.
        open_channel: opens a channel for health checks.
    """

    target: str
    is_named: bool
    address: str
    has_tls: bool
    open_client: Callable[[], SyncWorkerClient]
    open_channel: Callable[[], grpc.Channel]


@dataclass(kw_only=True)
class Machine:
    """The machine that is examined, as a service or worker on it would see it.

    Attributes:
        service: the service that its callers use; a text says why it cannot be reached at all.
        timeout: seconds that one check may take.
        environ: environment of the process.
        folder: folder of the settings file.
        settings: the settings, without those that are invalid.
        faults: what is invalid about the settings.
    """

    service: Service | str
    timeout: float
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    folder: Path = field(default_factory=Path.cwd)
    settings: Settings = field(init=False)
    faults: tuple[str, ...] = ()
    _registry: asyncio.Task[WorkerRegistry | RegistryError | SettingsError] | None = None
    _client: asyncio.Task[Client | WorkerError] | None = None

    def __post_init__(self) -> None:
        """Read the settings."""
        try:
            self.settings = load_settings(self.environ, self.folder)
        except SettingsError as error:
            self.settings, self.faults = cast("Settings", error.usable), error.faults

    @property
    def patience(self) -> float:
        """Seconds that one connection may take: it gives up before its check does, and so says what is wrong."""
        return _PART * self.timeout

    async def registry(self) -> WorkerRegistry | RegistryError | SettingsError:
        """Return the modules that are installed here, or what is wrong with them."""
        if self._registry is None:
            self._registry = asyncio.create_task(self._discover(), name="modules")
        return await asyncio.shield(self._registry)

    async def _discover(self) -> WorkerRegistry | RegistryError | SettingsError:
        try:
            async with asyncio.timeout(_MODULES_TIMEOUT):
                return await in_thread(lambda: discover(self.settings))
        except TimeoutError:
            return RegistryError([f"the modules were not imported within {_MODULES_TIMEOUT:g} s"])
        except (RegistryError, SettingsError) as error:
            return error

    async def client(self) -> Client | WorkerError:
        """Return a client of the Temporal server, or why there is none. It changes nothing there."""
        if self._client is None:
            self._client = asyncio.create_task(self._connect(), name="temporal")
        return await asyncio.shield(self._client)

    async def _connect(self) -> Client | WorkerError:
        from ..temporal.client import connect

        # No payload is read, so a wrong file of keys or storage must not hide the server.
        timeout = min(self.settings.temporal_timeout, self.patience)
        changes = {"temporal_timeout": timeout, "payload_keys_file": None, "payload_storage": ""}
        try:
            return await connect(self.settings.model_copy(update=changes), register=False)
        except WorkerError as error:
            return error

    @functools.cached_property
    def _secrets(self) -> tuple[str, ...]:
        found = [value for name, value in self.environ.items() if _SECRET_VARIABLES.fullmatch(name)]
        values = (getattr(self.settings, name) for name in type(self.settings).model_fields)
        found += [each.get_secret_value() for each in values if isinstance(each, SecretStr)]
        found += _texts(self.settings.modules)
        return tuple(sorted({text for text in found if len(text) >= _SHORTEST_SECRET}, key=len, reverse=True))

    def without_secrets(self, text: str) -> str:
        """Return a text without the secrets that the settings hold, wherever it comes from."""
        text = without_userinfo(text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _texts(section: object, name: str = "") -> list[str]:
    """Return the texts of modules' settings that may be secrets."""
    match section:
        case Mapping():
            inside = cast("Mapping[str, object]", section)
            return [text for key, value in inside.items() for text in _texts(value, f"{name}.{key}")]
        case list() | tuple():
            return [text for value in cast("Sequence[object]", section) for text in _texts(value, name)]
        case str():
            passwords = _PASSWORD.findall(section)
            # A URL may hold one anywhere behind its question mark.
            is_secret = bool(_SECRET_KEYS.search(name) or passwords or ("://" in section and "?" in section))
            return [*passwords, *([section] if is_secret else [])]
        case _:
            return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A check of the table.

    Attributes:
        name: what it checks; its findings may have longer names that begin with it.
        run: returns what it finds. A plain function runs in a thread of its own.
        needs_temporal: whether it is skipped where no Temporal server answers.
        needs_modules: whether it waits until all modules are imported, which may take longer than a check.
    """

    name: str
    run: Callable[[Machine], Sequence[Finding] | Awaitable[Sequence[Finding]]]
    needs_temporal: bool = False
    needs_modules: bool = False


async def run_checks(machine: Machine, checks: Sequence[Check]) -> AsyncGenerator[Finding, None]:
    """Run all checks at once, then those of the modules, and yield what they find, in the order of the table."""
    running = [asyncio.create_task(_bounded(check, machine), name=check.name) for check in checks]
    running += [asyncio.create_task(_of_modules(machine), name="modules' own")]
    try:
        for task in running:
            for finding in await task:
                yield replace(
                    finding,
                    value=machine.without_secrets(finding.value),
                    detail=machine.without_secrets(finding.detail),
                    fix=machine.without_secrets(finding.fix),
                )
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _of_modules(machine: Machine) -> list[Finding]:
    from ..modules.registry import ModuleContext

    registry = await machine.registry()
    if not isinstance(registry, WorkerRegistry):
        return [skip("modules.checks", "the modules cannot be loaded")]
    checks = list[Check]()
    for module in registry.modules.values():
        context = ModuleContext(
            settings=module.settings, data_folder=machine.settings.data_folder, workflows=registry.workflows
        )
        checks += [
            Check(name=f"{module.config.name}.{name}", run=_of_module(run, context))
            for name, run in module.config.checks.items()
        ]
    found = await asyncio.gather(*(_bounded(check, machine) for check in checks))
    return [finding for findings in found for finding in findings]


def _of_module(run: Callable[[Any], Any], context: Any) -> Callable[[Machine], Any]:
    if inspect.iscoroutinefunction(run):

        async def awaited(_: Machine) -> Any:
            return await run(context)

        return awaited
    return lambda _: run(context)


async def _bounded(check: Check, machine: Machine) -> Sequence[Finding]:
    try:
        if check.needs_temporal and isinstance(await machine.client(), WorkerError):
            return [skip(check.name, "no Temporal server answers")]
        if check.needs_modules:
            await machine.registry()
        async with asyncio.timeout(machine.timeout):
            if inspect.iscoroutinefunction(check.run):
                return cast("Sequence[Finding]", await check.run(machine))
            return await in_thread(lambda: cast("Sequence[Finding]", check.run(machine)))
    except TimeoutError:
        fix = "see what it waits for, or give it more time with --timeout SECONDS"
        return [fail(check.name, f"no answer within {machine.timeout:g} s", fix=fix)]
    except (SettingsError, RegistryError) as error:
        return [fail(check.name, fault, fix="correct it where it is set") for fault in error.faults]
    except ContextUnityError as error:
        first, _, rest = str(error).partition("\n")
        return [fail(check.name, first, rest, fix="correct what it names")]
    # Whatever it is, the other checks must be heard. It is not swallowed: the report has it, as a failure.
    except Exception as error:  # noqa: BLE001
        text = f"{type(error).__name__}: {error}"
        return [fail(check.name, f"the check itself failed: {text}", fix="report it, with the output of --json")]


async def in_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread that does not keep the process from ending, unlike those of an executor."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(cast("T", result))
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as caught:  # noqa: BLE001 - handed to whoever waits
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await done
