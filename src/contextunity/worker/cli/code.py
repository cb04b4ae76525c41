"""`contextworker code run`: run a small program in the service's sandbox."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .commands import COMMANDS, Commands
from .connection import FAILED, UsageError, add_json, add_options, run_with_client
from .inputs import add_input, read_input, read_text
from .output import complain, print_json, printable, say
from .watching import follow_up

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import ExecuteCodeResult

    from ..client import SyncWorkerClient

__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Add the command."""
    code = commands.add_parser("code", help=COMMANDS["code"][1])
    actions = code.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    parser = actions.add_parser("run", help="run a program, and print its output unchanged")
    parser.add_argument("file", metavar="FILE|-", help="source of the program; - reads the standard input")
    parser.add_argument(
        "--language", default="", metavar="WORD", help="python, monty or cpython (the service's default)"
    )
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="limit of its wall-clock time")
    add_input(parser, "variables of the program, by name")
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="a file for the program's folder, with the same name; repeatable",
    )
    parser.add_argument(
        "--tool", dest="tools", action="append", default=[], metavar="NAME", help="a tool that it may call"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")
    add_json(parser)
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0 if the program succeeded, 1 if it or the service failed."""
    return run_with_client(_run, arguments)


def _run(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    from contextunity.core import codec

    from ..client import plain_value

    if arguments.file == "-" and arguments.input == "-":
        raise UsageError("the standard input is one: it has the program or --input, not both")
    result = client.execute_code(
        read_text(arguments.file),
        language=arguments.language,
        time_limit=arguments.time_limit,
        inputs=read_input(arguments.input),
        files={path.name: _bytes(path) for path in arguments.files},
        tools=arguments.tools,
        wait=False if arguments.no_wait else None,
    )
    under_way = result.status in ("started", "running")
    # With --no-wait, a started program is a success.
    notice = _notice(client, result) if result.status == "running" else result.notice
    good = under_way or (result.status == "ok" and result.exit_code == 0)
    if arguments.json:
        data = codec.to_dict(result, preserving_proto_field_name=True)
        told = {"notice": notice} if notice else {}
        print_json({"status": result.status, "exit_code": result.exit_code, "stdout": "", "stderr": "", **data, **told})
        return 0 if good else FAILED
    for stream, text in ((sys.stdout, result.stdout), (sys.stderr, result.stderr)):
        # Files and pipes get it unchanged.
        stream.write(printable(text) if stream.isatty() else text)
        stream.flush()
    if result.result is not None:
        print_json(plain_value(result.result))
    if notice:
        complain(notice)
    if under_way:
        say(f"it runs; wait for it with\n  {follow_up(arguments, 'result', result.workflow_id)}")
    if result.truncated:
        complain("the output was cut at its bound")
    if not good:
        complain(f"the program ended with {result.status}" + (f": {result.error}" if result.error else ""))
    return 0 if good else FAILED


def _notice(client: SyncWorkerClient, result: ExecuteCodeResult) -> str:
    """Return why a program has not ended, such as that no worker polls; empty if unknown."""
    from ..client import WorkerServiceError

    try:
        return client.task(result.workflow_id, run_id=result.run_id).status().notice
    except WorkerServiceError:
        # The program runs anyway; an error here would hide that.
        return ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
