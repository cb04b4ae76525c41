"""The backend `monty`: Monty, an interpreter for a subset of Python, in processes of its own.

backend runs programs; guest is what runs inside Monty around a program; output takes what comes out; ending tells how
a program ended; files is a program's folder and what a snapshot keeps of it.
"""

from __future__ import annotations

from .backend import MontyBackend

__all__ = ["MontyBackend"]
