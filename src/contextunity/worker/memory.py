"""Gives memory back to the system: glibc keeps what was freed between things that are still in use."""

from __future__ import annotations

import asyncio
import ctypes
import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["giving_back", "resident_bytes", "trim"]

_EVERY = 30.0
"""Seconds between two looks."""
_GROWN = 64 * 1024 * 1024
"""Bytes beyond those at the start from which on it is worth the milliseconds that it takes."""
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory that the process has resident; 0 where the kernel does not tell."""
    try:
        _, resident, *_ = _STATM.read_text().split()
    except OSError:
        return 0
    return int(resident) * resource.getpagesize()


def trim() -> bool:
    """Has the C library give back what is free; False where it is none that can be told to."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is None:
        return False
    # ctypes lets other threads run meanwhile.
    give_back(0)
    return True


@asynccontextmanager
async def giving_back() -> AsyncGenerator[None, None]:
    """Gives back what is free, by and by, while the context is open: a flood would else leave its mark for good."""
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
