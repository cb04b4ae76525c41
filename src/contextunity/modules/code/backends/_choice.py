"""Chooses the backend for a language, as the deployment says and never otherwise."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import Language

from ..errors import LanguageUnknownError
from ..settings import CodeSettings
from ._monty import MontyBackend
from ._protocol import Backend, Outcome, Program, SandboxUnavailable, ToolReply
from .cpython import CPythonBackend

__all__ = ["Backends", "open_backends"]


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backends:
    """The backends of a worker by name, and which of them stands for Python."""

    by_name: Mapping[str, Backend]
    python: str

    def for_language(self, language: Language) -> Backend:
        """The backend that runs a language. There is no falling back: another one has other promises.

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
                raise LanguageUnknownError(f"there is no language {int(language)}; there are python, monty and cpython")

    def named(self, name: str) -> Backend:
        """A backend by name.

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
    """In place of a backend that cannot work here."""

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
    """Opens the backends that the settings ask for. One that cannot work here says so to each program."""
    async with contextlib.AsyncExitStack() as stack:
        by_name = dict[str, Backend]()
        monty = MontyBackend(
            processes=settings.parallel, runs_per_process=settings.runs_per_process, folder=folder / "monty"
        )
        try:
            by_name["monty"] = await stack.enter_async_context(monty)
        except SandboxUnavailable as error:
            # No reason to stop the other modules of the worker: who wants to run a program is told.
            _LOG.warning("%s", error)
            by_name["monty"] = _Unavailable("monty", str(error))
        if settings.cpython or settings.python == "cpython":
            # It starts with the first program that asks for it, and says then what the kernel lacks.
            cpython = CPythonBackend(folder=folder / "cpython")
            stack.push_async_callback(cpython.aclose)
            by_name["cpython"] = cpython
        yield Backends(by_name, settings.python)
