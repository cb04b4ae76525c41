"""Opens the backend `cpython`."""

from __future__ import annotations

from pathlib import Path

from ._cpython import CPythonBackend

__all__ = ["CPythonBackend", "open_backend"]


async def open_backend(*, folder: Path) -> CPythonBackend:
    """Opens the backend, and tries whether its jail holds.

    Args:
        folder: where its scratch folders are made.

    Raises:
        SandboxUnavailable: the kernel, or this process, lacks what the jail needs; the text says what.
        SandboxFailedError: it did not start.
    """
    backend = CPythonBackend(folder=folder)
    try:
        await backend.start()
    except BaseException:
        await backend.aclose()
        raise
    return backend
