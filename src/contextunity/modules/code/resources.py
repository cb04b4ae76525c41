"""Resources that the activities of one worker share: backends, program slots, and tools."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import Language

from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.quotas import Quotas
from contextunity.worker.temporal.concurrency import ConcurrencyLimit

from .backend import Backend, Outcome, Program, ToolReply
from .cpython import CPythonBackend
from .errors import LanguageUnknownError, SandboxUnavailable
from .monty import MontyBackend
from .program_slots import ProgramSlots
from .settings import CodeSettings
from .snapshots import SnapshotKeys, open_snapshot_keys
from .tools import ToolSet, open_tools

__all__ = ["Backends", "Resources", "current", "lifespan", "open_backends"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Resources of a worker, opened at its start.

    Attributes:
        settings: settings of the module.
        backends: backends that run programs.
        program_slots: limit of concurrent programs.
        tools: tools that programs may call.
        tool_calls: limit of concurrent tool calls.
        snapshot_keys: seal the states of stopped programs.
        quotas: quotas of tenants.
    """

    settings: CodeSettings
    backends: Backends
    program_slots: ProgramSlots
    tools: ToolSet
    tool_calls: ConcurrencyLimit
    snapshot_keys: SnapshotKeys
    quotas: Quotas = field(default_factory=Quotas)


_current: Resources | None = None


def current() -> Resources:
    """Return the resources of the current worker.

    Raises:
        RuntimeError: no worker with the code module runs in this process.
    """
    if _current is None:
        raise RuntimeError("activities of the code module run in a worker that has opened the module's lifespan")
    return _current


@contextlib.asynccontextmanager
async def lifespan(context: ModuleContext) -> AsyncGenerator[None, None]:
    """Open the resources of a worker, and close them when it stops.

    Raises:
        SettingsError: tools, their settings or the snapshot keys are invalid.
    """
    global _current
    settings = context.settings if context.settings is not None else CodeSettings()
    snapshot_keys = open_snapshot_keys(context.snapshot_key_file, context.data_folder)
    async with contextlib.AsyncExitStack() as stack:
        tools = await stack.enter_async_context(open_tools(settings, context.data_folder))
        backends = await stack.enter_async_context(open_backends(settings, context.data_folder / "code"))
        program_slots = ProgramSlots(settings.parallel, settings.tenant_slots)
        tool_calls = ConcurrencyLimit("tools", settings.parallel_tools, {"tenant": settings.parallel_tools_per_tenant})
        _current = Resources(
            settings=settings,
            backends=backends,
            program_slots=program_slots,
            tools=tools,
            tool_calls=tool_calls,
            snapshot_keys=snapshot_keys,
            quotas=context.quotas,
        )
        try:
            yield
        finally:
            _current = None


@dataclass(frozen=True, slots=True)
class Backends:
    """The backends of a worker by name, and the one for the language `python`."""

    by_name: Mapping[str, Backend]
    python: str

    def for_language(self, language: Language) -> Backend:
        """Return the backend of a language. There is no fallback: another backend has other guarantees.

        Raises:
            LanguageUnknownError: this deployment does not offer it.
        """
        match language:
            case Language.UNSPECIFIED | Language.PYTHON:
                return self.named(self.python)
            case Language.MONTY:
                return self.named("monty")
            case Language.CPYTHON:
                return self.named("cpython")
            case _:
                raise LanguageUnknownError(f"unknown language {int(language)}; known are python, monty and cpython")

    def named(self, name: str) -> Backend:
        """Return a backend by name.

        Raises:
            LanguageUnknownError: this deployment does not offer it.
        """
        backend = self.by_name.get(name)
        if backend is None:
            raise LanguageUnknownError(
                f"this deployment does not offer the backend {name}; it offers {', '.join(sorted(self.by_name))}"
                f"{'; set cpython = true under [modules.code] to offer it' if name == 'cpython' else ''}"
            )
        return backend


@dataclass(frozen=True, slots=True)
class _Unavailable:
    """Reject all programs, in place of a backend that is not supported here."""

    name: str
    reason: str

    async def run(self, program: Program) -> Outcome:
        raise SandboxUnavailable(self.reason)

    async def resume(self, program: Program, snapshot: bytes, reply: ToolReply) -> Outcome:
        raise SandboxUnavailable(self.reason)

    async def aclose(self) -> None:
        return


@contextlib.asynccontextmanager
async def open_backends(settings: CodeSettings, folder: Path) -> AsyncGenerator[Backends, None]:
    """Open the backends of the settings. An unsupported one rejects each program with the reason."""
    async with contextlib.AsyncExitStack() as stack:
        by_name = dict[str, Backend]()
        monty = MontyBackend(
            processes=settings.parallel, runs_per_process=settings.runs_per_process, folder=folder / "monty"
        )
        try:
            by_name["monty"] = await stack.enter_async_context(monty)
        except SandboxUnavailable as error:
            # Do not stop the other modules of the worker: each caller gets the reason.
            _log.warning("%s", error)
            by_name["monty"] = _Unavailable("monty", str(error))
        if settings.cpython or settings.python == "cpython":
            # It starts with the first program that uses it, and then reports what the kernel lacks.
            cpython = CPythonBackend(folder=folder / "cpython")
            stack.push_async_callback(cpython.aclose)
            by_name["cpython"] = cpython
        yield Backends(by_name, settings.python)
