"""The backends that the suites run over, opened by name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contextunity.modules.code.backend import Backend, Program, ProgramLimits
from contextunity.modules.code.errors import SandboxUnavailable

NAMES = ("monty", "cpython")
_LIMITS = ProgramLimits(
    wall=20.0, cpu=20.0, memory_bytes=64 << 20, output_bytes=1000, result_bytes=1000, scratch_bytes=1 << 20
)


@contextlib.asynccontextmanager
async def opened(name: str, folder: Path) -> AsyncIterator[Backend]:
    """A backend; the test is skipped, with the reason, where the machine lacks what it needs."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            stack.push_async_callback((backend := await open_backend(name, folder)).aclose)
        except SandboxUnavailable as error:
            pytest.skip(str(error))
        yield backend


async def open_backend(name: str, folder: Path) -> Backend:
    """A backend, for who closes it.

    Raises:
        SandboxUnavailable: it cannot work here.
    """
    if name == "monty":
        from contextunity.modules.code.monty import MontyBackend

        return await MontyBackend(processes=2, folder=folder / "monty").__aenter__()
    from contextunity.modules.code.cpython import CPythonBackend

    backend = CPythonBackend(folder=folder / "cpython")
    try:
        await backend.run(Program(code="", limits=_LIMITS))
    except BaseException:
        await backend.aclose()
        raise
    return backend
