"""The backends that run programs, the Protocol that they have in common, and the choice among them."""

from __future__ import annotations

from ._choice import Backends, open_backends
from ._protocol import Backend, Outcome, Program, ProgramLimits, SandboxUnavailable, ToolBackend, ToolReply, ToolWanted

__all__ = [
    "Backend",
    "Backends",
    "Outcome",
    "Program",
    "ProgramLimits",
    "SandboxUnavailable",
    "ToolBackend",
    "ToolReply",
    "ToolWanted",
    "open_backends",
]
