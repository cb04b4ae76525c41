"""Tools: named functions that a deployment offers to programs, each call an activity with retries of its own.

A tool is found through the entry-point group `contextunity.worker.code_tools`, which names a Tool, or by an import path
in the setting `tool_paths`.
"""

from __future__ import annotations

from ._model import Tool, ToolCaller, ToolContext, ToolFunction
from ._set import ENTRY_POINT_GROUP, ToolSet, open_tools

__all__ = ["ENTRY_POINT_GROUP", "Tool", "ToolCaller", "ToolContext", "ToolFunction", "ToolSet", "open_tools"]
