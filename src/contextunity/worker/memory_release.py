"""Return memory to the system: glibc keeps freed memory between blocks that are in use."""

from __future__ import annotations

import asyncio
import ctypes
import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["giving_back", "resident_bytes", "trim"]

_EVERY = 30.0
"""Seconds between two checks."""
_GROWN = 64 * 1024 * 1024
"""Growth in bytes since the start from which trimming is worth its milliseconds."""
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the resident memory of the process in bytes; 0 if the kernel does not report it."""
    try:
        _, resident, *_ = _STATM.read_text().split()
    except OSError:
        return 0
    return int(resident) * resource.getpagesize()


def trim() -> bool:
    """Make the C library return free memory; False if it cannot."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is None:
        return False
    # ctypes releases the GIL, so other threads run meanwhile.
    give_back(0)
    return True


@asynccontextmanager
async def giving_back() -> AsyncGenerator[None, None]:
    """Return free memory periodically while the context is open; otherwise a flood's memory would never be returned."""
    task = asyncio.create_task(_give_back(), name="giving memory back")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _give_back() -> None:
    usual = resident_bytes()
    while True:
        await asyncio.sleep(_EVERY)
        if usual and resident_bytes() - usual > _GROWN and not await asyncio.to_thread(trim):
            return
