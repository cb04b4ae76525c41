"""What `contextworker doctor` checks of the code module: the kernel's walls, and that each backend runs a program."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import process_jail
from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.doctor.findings import Finding, fail, ok, warn
from process_jail import landlock

from .backend import Backend, Outcome, Program, ProgramLimits
from .errors import CodeError
from .resources import open_backends
from .settings import CodeSettings

__all__ = ["check_kernel", "check_programs"]

_NOBODY = 65534
_NEW_NAMESPACES = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x4C000000) != 0)"
"""Tries, in a process of its own, the namespaces that the cpython backend uses where it may: network, IPC, host name.
It needs none of them."""
_PROGRAM = Program(
    code="sum(range(10))",
    limits=ProgramLimits(
        wall=5.0, cpu=5.0, memory_bytes=128 << 20, output_bytes=1024, result_bytes=1024, scratch_bytes=1 << 20
    ),
)
_RESULT = 45


async def check_kernel(context: ModuleContext) -> list[Finding]:
    """Check what the backend cpython needs of the kernel."""
    settings = context.settings if context.settings is not None else CodeSettings()
    if not (settings.cpython or settings.python == "cpython"):
        return [ok("code.kernel", "the backend cpython is off")]
    if lacking := process_jail.missing(os.geteuid() == 0, _NOBODY):
        fix = "give the worker what it lacks, or set cpython = false under [modules.code]"
        return [fail("code.kernel", f"lacks {'; '.join(lacking)}", fix=fix)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", _NEW_NAMESPACES)
    try:
        has_namespaces = await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    detail = f"namespaces {'too' if has_namespaces else 'are not allowed, and not needed'}"
    return [ok("code.kernel", f"Landlock version {landlock.abi()}, seccomp", detail)]


async def check_programs(context: ModuleContext) -> list[Finding]:
    """Run a tiny program in each backend."""
    settings = context.settings if context.settings is not None else CodeSettings()
    one = settings.model_copy(update={"parallel": 1, "parallel_per_tenant": 1})
    with tempfile.TemporaryDirectory(prefix="contextworker-doctor-") as folder:
        async with open_backends(one, Path(folder)) as backends:
            findings = [await _run(name, backend) for name, backend in sorted(backends.by_name.items())]
    if "cpython" not in backends.by_name:
        findings.append(ok("code.programs.cpython", "off"))
    return findings


async def _run(name: str, backend: Backend) -> Finding:
    check = f"code.programs.{name}"
    try:
        outcome = await backend.run(_PROGRAM)
    except CodeError as error:
        fix = "callers of this backend get this error until it is resolved"
        return fail(check, "runs no programs", str(error), fix=fix)
    if isinstance(outcome, Outcome) and outcome.has_result and outcome.result == _RESULT:
        return ok(check, f"ran a program in {outcome.duration_ms} ms")
    told = outcome.error if isinstance(outcome, Outcome) else "it called a tool"
    return warn(check, "ran a program with a wrong outcome", told, fix="report it, with the output of --json")
