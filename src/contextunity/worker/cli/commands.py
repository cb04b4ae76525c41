"""Which commands there are, and which module has each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["COMMANDS", "SERVE", "Commands"]


class Commands(Protocol):
    """Where parsers of commands are added; argparse's own class for it has no public name."""

    def add_parser(self, name: str, *, help: str, **options: Any) -> argparse.ArgumentParser:
        """Adds the parser of a command."""
        ...


SERVE = "contextunity.worker.cli.serve"
_TASKS = "contextunity.worker.cli.tasks"

COMMANDS: Mapping[str, tuple[str, str]] = {
    "dev": (SERVE, "run everything at once: Temporal server, gRPC service, workers"),
    "serve": (SERVE, "run the gRPC service, as without a command"),
    "temporal": (SERVE, "run Temporal workers, as --temporal does"),
    "protos": (SERVE, "write the proto files that contracts import, for buf or protoc"),
    "contracts": ("contextunity.worker.cli.contracts", "tell what can be started, and with what"),
    "contract": ("contextunity.worker.cli.contract", "check your protos against those last released, and release them"),
    "start": ("contextunity.worker.cli.start", "start a task"),
    "list": (_TASKS, "list tasks, newest first"),
    "status": (_TASKS, "tell how a task goes"),
    "watch": (_TASKS, "follow a task to its end"),
    "result": (_TASKS, "wait for a task's result and print it"),
    "cancel": (_TASKS, "ask a task to end in its own way"),
    "terminate": (_TASKS, "end a task at once"),
    "signal": (_TASKS, "send a task a signal of its contract"),
    "query": (_TASKS, "ask a task a query of its contract"),
    "update": (_TASKS, "have a task do an update of its contract"),
    "schedules": ("contextunity.worker.cli.schedules", "list, register and steer schedules"),
    "code": ("contextunity.worker.cli.code", "run a program in the service's sandbox"),
    "token": ("contextunity.worker.cli.token", "make tokens and secrets, and verify tokens"),
}
"""Commands by name: the module that has each, and what it does in a few words."""
