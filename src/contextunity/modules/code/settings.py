"""Settings of the code module: backends, limits of programs, concurrency, and tools."""

from __future__ import annotations

import os
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["CodeSettings", "LimitSettings"]

_MIB = 1024 * 1024
_MAXIMUM_WALL = 30.0
"""Default maximum of a caller's timeout, in seconds: clients that always send a timeout use this."""


class LimitSettings(BaseModel):
    """Limits of one program: `[modules.code.limits]` and `[modules.code.maximum]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    wall: float = Field(default=5.0, gt=0, le=540)
    """Seconds of wall-clock time, without tools."""
    cpu: float = Field(default=5.0, gt=0, le=540)
    """Seconds of processor time."""
    memory_bytes: int = Field(default=256 * _MIB, ge=_MIB)
    """Memory of the program, in addition to the interpreter's own."""
    output_bytes: int = Field(default=64 * 1024, gt=0, le=_MIB // 2)
    """Standard output and standard error together; the rest is cut."""
    result_bytes: int = Field(default=256 * 1024, gt=0, le=_MIB)
    """The result, as JSON."""
    scratch_bytes: int = Field(default=16 * _MIB, gt=0)
    """Files that the program writes, together."""


class CodeSettings(BaseModel):
    """`[modules.code]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    python: Literal["monty", "cpython"] = "monty"
    """Backend for the language `python` and for requests without a language."""
    cpython: bool = True
    """Whether programs may select the backend cpython. It starts with the first program that does."""
    limits: LimitSettings = LimitSettings()
    """Default limits."""
    maximum: LimitSettings = LimitSettings(wall=_MAXIMUM_WALL)
    """Maximum limits that a caller may request; unset ones are as in `limits`, but `wall` is 30 if both are unset."""
    parallel: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Concurrent programs in one worker; by default the number of processors."""
    parallel_per_tenant: int = Field(default=0, ge=0)
    """Concurrent programs of one tenant in one worker; 0 means half of `parallel`, and at least one."""
    parallel_tools: int = Field(default=16, ge=1)
    """Concurrent tool calls in one worker. Its task queue has as many activity slots in addition to
    `max_concurrent_activities`, so that waiting tools use no slots of programs."""
    parallel_tools_per_tenant: int = Field(default=4, ge=1)
    """Tool calls of one tenant's programs; further calls wait without a slot."""
    runs_per_process: int = Field(default=1, ge=1)
    """Programs after which a Monty process is replaced. 1 isolates programs even if one breaks out of the interpreter;
    more save 3 ms per run."""
    tool_paths: tuple[str, ...] = ()
    """Tools in addition to the entry points, as import paths `package.module:object`."""
    tools: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of the tools by name; `enabled = false` removes one. Each tool checks its own."""

    @model_validator(mode="before")
    @classmethod
    def _maximum_from_limits(cls, values: Any) -> Any:
        """Fill `maximum` from `limits`, so that raising only a default is consistent."""
        if not isinstance(values, dict):
            return values
        section = cast("dict[str, Any]", values)
        limits, maximum = section.get("limits", {}), section.get("maximum", {})
        if not isinstance(limits, dict) or not isinstance(maximum, dict):
            return section
        merged: dict[str, Any] = {
            "wall": _MAXIMUM_WALL,
            **cast("dict[str, Any]", limits),
            **cast("dict[str, Any]", maximum),
        }
        return {**section, "maximum": merged}

    @model_validator(mode="after")
    def _limits_within_maximum(self) -> Self:
        for name in LimitSettings.model_fields:
            limit, maximum = getattr(self.limits, name), getattr(self.maximum, name)
            if limit > maximum:
                raise ValueError(f"limits.{name} {limit:g} is above maximum.{name} {maximum:g}; raise the latter")
        if self.parallel_per_tenant > self.parallel:
            raise ValueError(
                f"parallel_per_tenant {self.parallel_per_tenant} is above parallel {self.parallel}; lower it"
            )
        return self

    @property
    def tenant_slots(self) -> int:
        """Concurrent programs of one tenant in one worker."""
        return self.parallel_per_tenant or max(1, self.parallel // 2)
