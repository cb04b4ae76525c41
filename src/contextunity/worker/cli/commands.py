"""Which commands there are, which module has each, and how words that do not fit are reported."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol, cast

from .connection import USAGE
from .output import did_you_mean, fail

__all__ = ["COMMANDS", "SERVE", "Commands", "Parser"]


class Parser(argparse.ArgumentParser):
    """Takes `--some_flag` as `--some-flag`, says what a mistyped word may mean, and reports in JSON with --json."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parses words; see argparse."""
        if args is not None:
            self._words = args = [self._with_dashes(word) for word in args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Reports what is wrong and ends the process with exit code 2."""
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
        """The parser of the command that the words name: it hands what it does not know back to the first one."""
        parser = self
        for word in self._words:
            choices: list[Mapping[str, Any]] = [
                cast("dict[str, Any]", action.choices) for action in parser._actions if isinstance(action.choices, dict)
            ]
            parser = next((found[word] for found in choices if word in found), parser)
        return parser


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
    "completion": ("contextunity.worker.cli.completion", "print what bash, zsh or fish need to complete commands"),
}
"""Commands by name: the module that has each, and what it does in a few words."""
