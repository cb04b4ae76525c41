"""Run programs in the real interpreter, each in its own jail: the backend `cpython`, on top of process_jail."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import ExecutionStatus

import process_jail

from .backend import Outcome, Program
from .errors import SandboxFailedError, SandboxUnavailable

__all__ = ["CPythonBackend"]


class CPythonBackend:
    """Run each program in its own child process with process_jail.Jail.

    The number of concurrent programs is not limited. It belongs to the event loop of its first use. The first run
    checks what the kernel supports.

    Args:
        folder: parent of the scratch folders. None, or a folder that the programs' user cannot access, means the
            system's folder for temporary files.
    """

    def __init__(self, *, folder: Path | None = None) -> None:
        self._jail = process_jail.Jail(folder=folder, name="cpython backend", prefix="contextworker-code-")

    @property
    def name(self) -> str:
        """`cpython`."""
        return "cpython"

    async def run(self, program: Program) -> Outcome:
        """Run a program to its end.

        Raises:
            SandboxUnavailable: the kernel or this process lacks what the jail needs.
            SandboxFailedError: the sandbox failed; a retry may help.
        """
        if program.tools:
            return Outcome(
                status=ExecutionStatus.UNSUPPORTED,
                exit_code=1,
                error="programs of the cpython backend cannot call tools; those of the monty backend can",
            )
        jailed = process_jail.Program(
            code=program.code,
            limits=process_jail.Limits(**dataclasses.asdict(program.limits)),
            inputs=program.inputs,
            files=program.files,
        )
        with _as_sandbox_errors():
            outcome = await self._jail.run(jailed)
        return Outcome(
            status=ExecutionStatus[outcome.status.name],
            has_result=outcome.has_result,
            result=outcome.result,
            stdout=outcome.stdout,
            stderr=outcome.stderr,
            exit_code=outcome.exit_code,
            duration_ms=round(outcome.wall * 1000),
            truncated=outcome.truncated,
            error=outcome.error,
            error_type=outcome.error_type,
        )

    async def aclose(self) -> None:
        """End running programs, and remove the scratch folders."""
        await self._jail.aclose()


@contextlib.contextmanager
def _as_sandbox_errors() -> Generator[None, None, None]:
    try:
        yield
    except process_jail.JailUnavailableError as error:
        raise SandboxUnavailable(str(error)) from None
    except process_jail.JailFailedError as error:
        raise SandboxFailedError(str(error)) from None
