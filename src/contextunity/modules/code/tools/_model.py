"""What a tool is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel

from contextunity.core.codec import JsonValue

__all__ = ["Tool", "ToolCaller", "ToolContext", "ToolFunction"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What a tool is opened with.

    Attributes:
        settings: its own settings, checked; None where it declares no model for them.
        data_folder: the worker's folder for embedded databases.
    """

    settings: Any
    data_folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCaller:
    """Who calls.

    Attributes:
        tenant_id: whose program it is.
        call_id: the same for each attempt at a call, and for no other; a tool with effects tells repetitions by it.
    """

    tenant_id: str
    call_id: str


ToolFunction: TypeAlias = Callable[..., Awaitable[JsonValue]]
"""Called with a ToolCaller and then the program's own arguments. It raises ToolRefusedError for what the program should
see as an exception; any other exception is a failure of this attempt, and the call is tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A tool that programs may call.

    Attributes:
        name: a Python identifier; programs call it by this.
        open: opens what the tool needs when a worker starts, gives the function, and closes it when the worker stops.
        settings: pydantic model of `[modules.code.tools.NAME]`, where it has settings.
        description: one line for people.
    """

    name: str
    open: Callable[[ToolContext], AbstractAsyncContextManager[ToolFunction]]
    settings: type[BaseModel] | None = None
    description: str = ""
