"""Tools: named functions that a deployment offers to programs; each call is an activity with its own retries.

A tool is found through the entry-point group `contextunity.worker.code_tools`, which names a Tool, or by an import path
in the setting `tool_paths`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from contextunity.core.codec import JsonValue
from contextunity.worker.errors import SettingsError
from contextunity.worker.setting_errors import describe_violations

from ..errors import ToolRefusedError, ToolUnknownError
from ..settings import CodeSettings

__all__ = ["ENTRY_POINT_GROUP", "Tool", "ToolCaller", "ToolContext", "ToolFunction", "ToolSet", "open_tools"]

ENTRY_POINT_GROUP = "contextunity.worker.code_tools"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Context for opening a tool.

    Attributes:
        settings: validated settings of the tool; None if it declares no model for them.
        data_folder: the worker's folder for embedded databases.
    """

    settings: Any
    data_folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCaller:
    """Caller of a tool.

    Attributes:
        tenant_id: tenant of the program.
        call_id: unique id of a call, the same for each attempt; a tool with side effects detects retries by it.
    """

    tenant_id: str
    call_id: str


ToolFunction: TypeAlias = Callable[..., Awaitable[JsonValue]]
"""Called with a ToolCaller and the program's arguments. Raise ToolRefusedError for an exception that the program should
see; any other exception fails the attempt, and the call is retried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A tool that programs may call.

    Attributes:
        name: a Python identifier, the function's name in programs.
        open: opens the tool when a worker starts, yields the function, and closes the tool when the worker stops.
        settings: pydantic model of `[modules.code.tools.NAME]`; None without settings.
        description: one line for people.
    """

    name: str
    open: Callable[[ToolContext], AbstractAsyncContextManager[ToolFunction]]
    settings: type[BaseModel] | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class ToolSet:
    """The open tools of a worker, by name."""

    functions: Mapping[str, ToolFunction]

    def check(self, names: tuple[str, ...]) -> None:
        """Check that all of these tools exist.

        Raises:
            ToolUnknownError: tools are unknown; all of them are named.
        """
        unknown = [name for name in names if name not in self.functions]
        if unknown:
            raise ToolUnknownError(unknown, known=self.functions)

    async def call(
        self, name: str, caller: ToolCaller, positional: list[JsonValue], named: dict[str, JsonValue]
    ) -> JsonValue:
        """Call a tool.

        Raises:
            ToolUnknownError: the tool does not exist.
            ToolRefusedError: the tool does not accept these arguments, or rejects them.
        """
        self.check((name,))
        function = self.functions[name]
        try:
            inspect.signature(function).bind(caller, *positional, **named)
        except TypeError as error:
            raise ToolRefusedError(f"{name}: {error}", error_type="TypeError") from None
        return await function(caller, *positional, **named)


@contextlib.asynccontextmanager
async def open_tools(settings: CodeSettings, data_folder: Path) -> AsyncGenerator[ToolSet, None]:
    """Open every installed tool that is not disabled.

    Raises:
        SettingsError: a tool cannot be loaded, a name is used twice, or settings are invalid; all errors are reported.
    """
    errors = list[str]()
    tools = _load_all(settings, errors)
    opening = list[tuple[Tool, ToolContext]]()
    for name, tool in tools.items():
        section = dict(settings.tools.get(name, {}))
        enabled = section.pop("enabled", True)
        if not isinstance(enabled, bool):
            errors.append(f"modules.code.tools.{name}.enabled = {enabled!r}: should be true or false")
        own = _check_settings(tool, section, errors)
        if enabled is True:
            opening.append((tool, ToolContext(settings=own, data_folder=data_folder)))
    known = ", ".join(sorted(tools)) or "none"
    errors += [
        f"modules.code.tools.{name}: there is no such tool; known tools: {known}"
        for name in settings.tools
        if name not in tools
    ]
    if errors:
        raise SettingsError(errors)
    async with contextlib.AsyncExitStack() as stack:
        yield ToolSet({tool.name: await stack.enter_async_context(tool.open(context)) for tool, context in opening})


def _load_all(settings: CodeSettings, errors: list[str]) -> dict[str, Tool]:
    tools = dict[str, Tool]()
    sources: list[tuple[str, Callable[[], object]]] = [
        (f"tool {point.name!r} (entry point {point.value})", point.load)
        for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)
    ]
    sources += [(f"tool {path!r} (tool_paths)", functools.partial(_import, path)) for path in settings.tool_paths]
    for where, load in sources:
        try:
            tool = load()
        # A tool is foreign code: report whatever its import raises, with the other errors.
        except Exception as error:  # noqa: BLE001
            errors.append(f"{where} cannot be loaded: {type(error).__name__}: {error}")
            continue
        if not isinstance(tool, Tool):
            errors.append(f"{where} is a {type(tool).__name__}; it should be a Tool")
        elif not tool.name.isidentifier() or tool.name.startswith("__"):
            errors.append(f"{where} is named {tool.name!r}, which is not a function name; rename it")
        elif tool.name in tools:
            errors.append(f"{where}: there is another tool {tool.name!r}; rename one")
        else:
            tools[tool.name] = tool
    return tools


def _import(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute or "tool")


def _check_settings(tool: Tool, section: Mapping[str, Any], errors: list[str]) -> Any:
    if tool.settings is None:
        errors += [f"modules.code.tools.{tool.name}.{key}: the tool {tool.name} has no settings" for key in section]
        return None
    try:
        return tool.settings.model_validate(dict(section))
    except ValidationError as error:
        errors += describe_violations(error, tool.settings, {}, f"modules.code.tools.{tool.name}.")
        return None
