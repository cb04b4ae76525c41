"""The backend `monty`: Monty, an interpreter for a subset of Python, in separate processes.

`backend` runs programs, `guest` is the source that runs inside Monty around a program, `output` collects output,
`ending` finds out how a program ended, and `files` handles a program's folder and snapshots.
"""

from __future__ import annotations

from .backend import MontyBackend

__all__ = ["MontyBackend"]
