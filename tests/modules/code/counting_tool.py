"""A tool that writes down each of its calls, and can be held; worker processes load it by its import path."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from contextunity.core.codec import JsonValue
from contextunity.modules.code.errors import ToolFailedError, ToolRefusedError
from contextunity.modules.code.tools import Tool, ToolCaller, ToolContext, ToolFunction


class CountingSettings(BaseModel):
    folder: Path


class Journal:
    """The calls as the tool saw them: one line for each beginning and each end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"
        self.gate = folder / "gate"

    def write(self, event: str, argument: JsonValue, call_id: str) -> None:
        with self._path.open("a") as journal:
            journal.write(json.dumps([event, argument, call_id]) + "\n")

    def read(self) -> list[list[str]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def count(self, event: str, argument: JsonValue) -> int:
        return sum(entry[:2] == [event, argument] for entry in self.read())


@contextlib.asynccontextmanager
async def _open(context: ToolContext) -> AsyncIterator[ToolFunction]:
    journal = Journal(context.settings.folder)

    async def count(caller: ToolCaller, argument: JsonValue, /, *, then: str = "") -> JsonValue:
        journal.write("begin", argument, caller.call_id)
        match then:
            case "hold":
                while not journal.gate.exists():  # noqa: ASYNC110 - another process opens it
                    await asyncio.sleep(0.05)
            case "refuse":
                raise ToolRefusedError("not this one", error_type="KeyError")
            case "fail once" if journal.count("begin", argument) == 1:
                raise ToolFailedError("not yet")
            case "flood":
                return "x" * 2_000_000
            case "break":
                raise OSError("broken")
        journal.write("end", argument, caller.call_id)
        return {"argument": argument, "tenant": caller.tenant_id}

    yield count


tool = Tool(name="count", open=_open, settings=CountingSettings)
