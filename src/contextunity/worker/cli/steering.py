"""Commands that steer a task: `cancel`, `terminate`, `signal`, `query` and `update`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .commands import COMMANDS, Commands
from .connection import add_json, add_options, run_with_client
from .inputs import add_input, read_input
from .output import print_json, say
from .tasks import add_task
from .watching import fields_text, follow_up

if TYPE_CHECKING:
    from ..client import SyncWorkerClient

__all__ = ["add_parser", "run"]

_ENDING = ("cancel", "terminate")
_HANDLERS = ("signal", "query", "update")


def add_parser(commands: Commands) -> None:
    """Adds the commands."""
    for name in (*_ENDING, *_HANDLERS):
        parser = commands.add_parser(name, help=COMMANDS[name][1])
        add_task(parser)
        if name in _ENDING:
            parser.add_argument("--reason", default="", metavar="TEXT", help="why, for whoever looks at its history")
        else:
            parser.add_argument("name", metavar="NAME", help=f"name of the {name} in the contract")
            add_input(parser, f"input of the {name}")
        add_json(parser)
        add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs a command; returns its exit code."""
    return run_with_client(_end if arguments.command in _ENDING else _handle, arguments)


def _end(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    task = client.task(arguments.workflow_id, run_id=arguments.run_id)
    if arguments.command == "cancel":
        reference, said = task.cancel(reason=arguments.reason), "asked to end; see how it does with"
    else:
        reference, said = task.terminate(reason=arguments.reason), "terminated; see what came of it with"
    if arguments.json:
        print_json({"workflow_id": reference.workflow_id, "run_id": reference.run_id})
    else:
        command = "watch" if arguments.command == "cancel" else "status"
        say(f"{said}\n  {follow_up(arguments, command, arguments.workflow_id)}")
    return 0


def _handle(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    task = client.task(arguments.workflow_id, run_id=arguments.run_id)
    given = read_input(arguments.input)
    match arguments.command:
        case "signal":
            reference = task.signal(arguments.name, given)
            data: Any = {"workflow_id": reference.workflow_id, "run_id": reference.run_id}
            text = "sent"
        case "query":
            data, text = task.query(arguments.name, given), ""
        case _:
            data, text = task.update(arguments.name, given), "done"
    if arguments.json:
        print_json(data)
    elif arguments.command == "signal" or not data:
        say(text or "no answer: the contract has none")
    else:
        for line in fields_text(data):
            say(line)
    return 0
