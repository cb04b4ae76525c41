"""The entry point: parse the command and run it."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import completion
from .commands import COMMANDS, SERVE, Commands, Parser
from .output import escape_unprintable_output, say

# Import nothing else here: each command imports what it needs.

__all__ = ["main"]

_LAST_PORT = 65535

_DESCRIPTION = """\
Durable background work for services in any language.

Running it:
  {program}                      the gRPC WorkerService
  {program} --temporal           Temporal workers for all modules
  {program} --temporal --modules harvest gardener
  {blank}                      Temporal workers for these modules
  {program} dev                  both and a Temporal server, for development

Calling it, on any machine:
  {program} start harvest --supplier-code camping-trade --watch
  {program} contracts            what else can be started
"""

_EPILOG = """\
`contextworker` and `python -m contextunity.worker` are the same, as in `python -m contextunity.worker dev`.

Services and workers take their settings from contextworker.toml and the environment (WORKER_HOST, WORKER_PORT,
WORKER_MODULES, CONTEXTWORKER_…), and connect to Temporal with TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and Temporal's other
variables. Other commands call the service at --target or CONTEXTWORKER_TARGET (localhost:50052).

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 service unreachable, 130 stopped by Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code; see the end of --help."""
    words = list(sys.argv[1:] if argv is None else argv)
    escape_unprintable_output()
    # gRPC's log lines only repeat our errors, or are of no use to a caller.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if completion.is_asked():
        completion.complete(_parser(completion.words_so_far()))
    parser = _parser(words)
    arguments, rest = parser.parse_known_args(words)
    arguments.program = parser.prog
    if arguments.command == "start":
        # The flags of `start` come from a contract, which only the running service knows.
        arguments.words, arguments.rest = words[words.index("start") + 1 :], rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.temporal = arguments.temporal or arguments.command == "temporal"
    if arguments.temporal and arguments.command == "serve":
        parser.error("serve runs the gRPC service, and --temporal workers; give one of the two")
    command_name = str(arguments.command or "serve")
    if arguments.temporal_host and command_name not in ("serve", "temporal"):
        parser.error(f"--temporal-host goes with serve and temporal; {command_name} does not take it")
    if arguments.log_level and COMMANDS[command_name][0] != SERVE:
        parser.error(f"--log-level goes with what runs; {command_name} does not take it")
    if arguments.modules and not (arguments.temporal or arguments.command == "dev"):
        parser.error("--modules goes with --temporal or dev: the gRPC service takes work for all modules")
    if arguments.own_tenant and not arguments.temporal:
        parser.error("--tenant goes with --temporal: the gRPC service takes work for all tenants")
    module, _ = COMMANDS[command_name]
    # Exempt what is loaded from garbage collection, which takes a tenth of the start otherwise.
    gc.disable()
    command = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    try:
        return int(command.run(arguments))
    except BrokenPipeError:
        # The reader closed the pipe. Discard what Python would flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(words: Sequence[str]) -> Parser:
    program = _program()
    parser = Parser(
        prog=program,
        description=_DESCRIPTION.format(program=program, blank=" " * len(program)),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    parser.add_argument("--temporal", action="store_true", help="run Temporal workers instead of the gRPC service")
    parser.add_argument(
        *("-m", "--modules"),
        nargs="+",
        action="extend",
        metavar="NAME",
        help="with --temporal: run workers for these modules only",
    )
    _add_running(parser, default="")
    parser.add_argument(
        "--tenant",
        default="",
        dest="own_tenant",
        metavar="NAME",
        help="with --temporal: run workers for this tenant's own task queues",
    )
    commands: Commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    added = set[str]()
    for name, (module, summary) in COMMANDS.items():
        if module == SERVE:
            _add_serving(name, commands.add_parser(name, help=summary))
        elif module not in added and any(each in words for each, (other, _) in COMMANDS.items() if other == module):
            importlib.import_module(module).add_parser(commands)
            added.add(module)
        elif module not in added:
            commands.add_parser(name, help=summary)
    return parser


def _add_serving(name: str, parser: argparse.ArgumentParser) -> None:
    if name == "protos":
        parser.add_argument("folder", type=Path, help="import folder to write them to")
        parser.add_argument(
            "--client",
            action="store_true",
            help="write what callers generate code from: all registered contracts, without annotations and internals",
        )
        return
    # Suppress the defaults, so that options before the command keep their values.
    suppress = argparse.SUPPRESS
    _add_running(parser, default=suppress)
    if name == "serve":
        return
    parser.add_argument(
        *("-m", "--modules"),
        nargs="+",
        action="extend",
        default=suppress,
        metavar="NAME",
        help="run workers for these modules alone",
    )
    if name == "temporal":
        parser.add_argument(
            "--tenant",
            default=suppress,
            dest="own_tenant",
            metavar="NAME",
            help="run workers for this tenant's own task queues",
        )
        return
    parser.add_argument("--temporal-port", type=_port, metavar="PORT", help="port of the Temporal server (7233)")
    parser.add_argument("--ui-port", type=_port, metavar="PORT", help="port of Temporal's web UI (8233)")


class _Version(argparse.Action):
    """Prints the version of the distribution, looked up on demand."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        say(f"contextworker {version('contextworker')}")
        parser.exit()


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port; give a number from 1 to {_LAST_PORT}, or 0 for any free one"
        )
    return int(text)


def _add_running(parser: argparse.ArgumentParser, *, default: str) -> None:
    parser.add_argument(
        "--temporal-host",
        default=default,
        metavar="HOST:PORT",
        help="address of the Temporal server; overrides the environment",
    )
    parser.add_argument(
        "--log-level", default=default, metavar="LEVEL", help="debug, info, warning or error; overrides the settings"
    )


def _program() -> str:
    """Return the command as it was called, so that commands in the help can be copied."""
    name = Path(sys.argv[0]).name
    return "python -m contextunity.worker" if name == "__main__.py" else "contextworker"
