"""The table of commands and their modules, and the errors for unknown words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol, cast

from .connection import USAGE
from .output import did_you_mean, fail

__all__ = ["COMMANDS", "SERVE", "Commands", "Parser"]


class Parser(argparse.ArgumentParser):
    """Accepts `--some_flag` for `--some-flag`, suggests a word for a mistyped one, and reports in JSON with --json."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse words; see argparse."""
        if args is not None:
            self._words = args = [self._with_dashes(word) for word in args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Report an error, and exit with code 2."""
        parser = self._of_command()
        message += parser._suggestion(message)
        namespace = argparse.Namespace(json="--json" in self._words)
        fail(namespace, USAGE, message, text=f"{message}\n  {parser.prog} --help describes what it takes", code="USAGE")
        self.exit(USAGE)

    def _with_dashes(self, word: str) -> str:
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        is_flag = name.startswith("--") and name not in self._option_string_actions
        return f"{dashed}{equals}{value}" if is_flag and dashed in self._option_string_actions else word

    def _suggestion(self, message: str) -> str:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice is not None:
            return did_you_mean(choice[1], re.findall(r"[\w.-]+", choice[2]))
        unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", message)
        return did_you_mean(unknown[1], self._option_string_actions) if unknown is not None else ""

    def _of_command(self) -> Parser:
        """Return the parser of the command; parsers of subcommands pass unknown words back to the first parser."""
        parser = self
        for word in self._words:
            choices: list[Mapping[str, Any]] = [
                cast("dict[str, Any]", action.choices) for action in parser._actions if isinstance(action.choices, dict)
            ]
            parser = next((found[word] for found in choices if word in found), parser)
        return parser


class Commands(Protocol):
    """Protocol for argparse's subparsers, whose own class has no public name."""

    def add_parser(self, name: str, *, help: str, **options: Any) -> argparse.ArgumentParser:
        """Add the parser of a command."""
        ...


SERVE = "contextunity.worker.cli.serve"
_TASKS = "contextunity.worker.cli.tasks"

COMMANDS: Mapping[str, tuple[str, str]] = {
    "dev": (SERVE, "run everything: Temporal server, gRPC service, workers"),
    "serve": (SERVE, "run the gRPC service (the default)"),
    "temporal": (SERVE, "run Temporal workers, like --temporal"),
    "protos": (SERVE, "write the proto files that contracts import, for buf or protoc"),
    "contracts": ("contextunity.worker.cli.contracts", "list what can be started, with the inputs"),
    "contract": ("contextunity.worker.cli.contract", "compare your protos with the last release, and release them"),
    "start": ("contextunity.worker.cli.start", "start a task"),
    "list": (_TASKS, "list tasks, newest first"),
    "status": (_TASKS, "show the status and progress of a task"),
    "watch": (_TASKS, "follow a task to its end"),
    "result": (_TASKS, "wait for a task's result and print it"),
    "cancel": (_TASKS, "request the cancellation of a task"),
    "terminate": (_TASKS, "terminate a task at once"),
    "signal": (_TASKS, "send a task a signal of its contract"),
    "query": (_TASKS, "send a task a query of its contract"),
    "update": (_TASKS, "send a task an update of its contract"),
    "schedules": ("contextunity.worker.cli.schedules", "list, register and control schedules"),
    "code": ("contextunity.worker.cli.code", "run a program in the service's sandbox"),
    "token": ("contextunity.worker.cli.token", "create tokens and secrets, and verify tokens"),
    "doctor": ("contextunity.worker.cli.doctor", "check this machine, its settings and the servers that it needs"),
    "completion": ("contextunity.worker.cli.completion", "print the completion script for bash, zsh or fish"),
}
"""Commands by name: module and short description."""
