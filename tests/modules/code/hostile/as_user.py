"""Runs all hostile programs over one backend, several at a time, and prints the faults as one line of JSON.

For a process of another user than the one that runs the tests: `python -m tests.modules.code.hostile.as_user BACKEND`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from contextunity.modules.code.backend import Backend
from contextunity.modules.code.errors import SandboxUnavailable

from ..opened import open_backend
from .harness import Traps, examine_alone, laid, left_behind, still_works
from .programs import HOSTILE, Hostile

_AT_ONCE = 3


async def _examine_all(name: str) -> dict[str, object]:
    with laid() as traps, tempfile.TemporaryDirectory() as folder:
        try:
            backend = await open_backend(name, Path(folder))
        except SandboxUnavailable as error:
            return {"unavailable": str(error)}
        try:
            before = left_behind(set())
            places = asyncio.Semaphore(_AT_ONCE)
            found = await asyncio.gather(*(_examine(backend, hostile, traps, places) for hostile in HOSTILE))
            faults = {hostile.name: fault for hostile, fault in zip(HOSTILE, found, strict=True) if fault}
            afterwards = [*traps.sprung(), *await still_works(backend), *map(str, left_behind(before))]
        finally:
            await backend.aclose()
    return {"uid": os.getuid(), "programs": len(HOSTILE), "faults": faults, "afterwards": afterwards}


async def _examine(backend: Backend, hostile: Hostile, traps: Traps, places: asyncio.Semaphore) -> list[str]:
    async with places:
        return await examine_alone(backend, hostile, traps)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_examine_all(sys.argv[1]))))
