"""The backends that run programs, and the Protocol that they have in common."""

from __future__ import annotations

from ._protocol import Backend, Outcome, Program, ProgramLimits, SandboxUnavailable, ToolBackend, ToolReply, ToolWanted

__all__ = [
    "Backend",
    "Outcome",
    "Program",
    "ProgramLimits",
    "SandboxUnavailable",
    "ToolBackend",
    "ToolReply",
    "ToolWanted",
]
