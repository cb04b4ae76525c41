"""`contextworker start`: start a task, with flags from the contract of its workflow_type."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .commands import COMMANDS, Commands, Parser
from .connection import UsageError, add_json, add_options, run_with_client
from .inputs import ContractFlags, add_input, read_input
from .output import headline, print_json, say
from .watching import follow, follow_up

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import ContractDescription

    from ..client import SyncWorkerClient

__all__ = ["add_parser", "run"]

_GENERAL = """\
Starts a task. The flags after WORKFLOW_TYPE come from its contract; the running service lists them with

  {program} start WORKFLOW_TYPE --help
"""


def add_parser(commands: Commands) -> None:
    """Add the command `start`, without the contract's flags."""
    parser = commands.add_parser("start", help=COMMANDS["start"][1], add_help=False, allow_abbrev=False)
    parser.add_argument("workflow_type", nargs="?")
    parser.add_argument("-h", "--help", action="store_true", dest="wants_help")
    _add_general(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    names = dict[str, str]()
    return run_with_client(lambda client, given: _start(client, given, names), arguments, names)


def _start(client: SyncWorkerClient, arguments: argparse.Namespace, names: dict[str, str]) -> int:
    from ..client import WorkerServiceError

    if arguments.workflow_type is None:
        if arguments.wants_help:
            return _general_help(client, arguments)
        raise UsageError(f"name what to start; {follow_up(arguments, 'contracts')} lists what there is")
    _check_order(arguments)
    try:
        (contract,) = client.describe_contracts(arguments.workflow_type).contracts
    except WorkerServiceError as error:
        if arguments.wants_help and error.unreachable:
            say(f"{error.message}, so the flags of {arguments.workflow_type} are not known here.\n")
            _general_parser(arguments).print_help()
            return 0
        raise
    besides = frozenset({"tenant_id"}) & {field.name for field in contract.fields if field.type == "string"}
    flags = ContractFlags(contract.fields, besides=besides)
    parser = _parser(contract, flags, arguments)
    if arguments.wants_help:
        parser.print_help()
        return 0
    given = parser.parse_args(arguments.words)
    given.program = arguments.program
    names |= flags.names("payload.", "payload.args.")
    parameters: dict[str, Any] = {**(read_input(given.input) or {}), **flags.given(given)}
    takes_none = not contract.input_type and not parameters
    task = client.start(contract.workflow_type, None if takes_none else parameters, unit_id=given.unit_id)
    if given.json:
        answer = {"workflow_id": task.workflow_id, "run_id": task.run_id, "status": "started"}
        print_json(answer, pretty=False if given.watch else None)
    else:
        say(f"started    {task.workflow_id}")
    if given.watch:
        return follow(task, given)
    if not given.json:
        say(f"\nSee how it goes:\n  {follow_up(given, 'watch', task.workflow_id)}")
    return 0


def _parser(contract: ContractDescription, flags: ContractFlags, arguments: argparse.Namespace) -> Parser:
    """Return the complete parser, with the flags of the contract."""
    parser = Parser(
        prog=f"{arguments.program} start {contract.workflow_type}",
        usage=f"{arguments.program} start {contract.workflow_type} [flags]",
        description=contract.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("workflow_type", help=argparse.SUPPRESS)
    # Create the group first for the help; add its flags last, because they must know which names are taken.
    group = parser.add_argument_group(f"input ({contract.input_type or 'none'})")
    _add_general(parser)
    flags.add_to(group)
    return parser


def _general_parser(arguments: argparse.Namespace) -> Parser:
    parser = Parser(
        prog=f"{arguments.program} start",
        usage=f"{arguments.program} start WORKFLOW_TYPE [flags]",
        description=_GENERAL.format(program=arguments.program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_general(parser)
    return parser


def _general_help(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    """Print the help without a workflow_type, and list the known ones if the service answers."""
    from ..client import WorkerServiceError

    _general_parser(arguments).print_help()
    try:
        contracts = client.describe_contracts().contracts
    except WorkerServiceError as error:
        say(f"\nWhat can be started is not known here: {error.message}.")
        return 0
    say("\nWhat can be started:")
    for contract in contracts:
        say(f"  {contract.workflow_type:<20} {headline(contract.description)}")
    return 0


def _add_general(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="wait, show the progress, and print the result")
    add_input(parser, "the whole input; flags of single fields override it")
    parser.add_argument(
        "--unit-id",
        default="",
        metavar="UUID",
        help="makes this start idempotent: the same UUID returns the same run",
    )
    add_json(parser, "print JSON for programs: one document, or with --watch a line for each change")
    add_options(parser)


def _check_order(arguments: argparse.Namespace) -> None:
    """Reject contract flags before the workflow_type: their values could be mistaken for it.

    Raises:
        UsageError: there are such flags.
    """
    words: list[str] = arguments.words
    rest: list[str] = arguments.rest
    if rest and words.index(rest[0]) < words.index(arguments.workflow_type):
        raise UsageError(f"name what to start first: {arguments.program} start WORKFLOW_TYPE {rest[0]} …")
