"""Commands about tasks: list, status, watch, result, cancel, terminate, signal, query, update."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .commands import COMMANDS, Commands
from .connection import FAILED, add_json, add_options, run_with_client
from .inputs import add_input, read_input
from .output import ago, complain, fail, print_json, print_table, say, seconds_text
from .watching import fields_text, follow, follow_up, last_of, progress_text, show_end, stopped_watching

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import TaskStatus

    from ..client import Answer, SyncWorkerClient

__all__ = ["add_parser", "add_task", "run"]

_STATES = ("running", "completed", "failed", "cancelled", "terminated", "timed_out")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_parser(commands: Commands) -> None:
    """Add the commands."""
    listing = commands.add_parser("list", help=COMMANDS["list"][1])
    listing.add_argument(
        "--workflow-type", action="append", default=[], metavar="NAME", help="of this type; repeatable"
    )
    listing.add_argument(
        "--status", action="append", default=[], type=_state, choices=_STATES, help="in this state; repeatable"
    )
    listing.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="started at or after this time: 2030-01-31T08:00Z, or 90s, 15m, 2h, 7d ago",
    )
    listing.add_argument("--until", type=_moment, metavar="TIME", help="started before this time")
    listing.add_argument("--limit", type=_count, default=50, metavar="N", help="maximum number of tasks (50)")
    add_json(listing)
    add_options(listing)
    for name in ("status", "watch", "result"):
        parser = commands.add_parser(name, help=COMMANDS[name][1])
        add_task(parser)
        add_json(
            parser,
            "print a JSON line for each change, for programs"
            if name == "watch"
            else "print one JSON document, for programs",
        )
        if name == "result":
            parser.add_argument("--no-wait", action="store_true", help="fail if it has not ended yet")
        add_options(parser)
    for name in (*_ENDING, *_HANDLERS):
        parser = commands.add_parser(name, help=COMMANDS[name][1])
        add_task(parser)
        if name in _ENDING:
            parser.add_argument("--reason", default="", metavar="TEXT", help="reason, for the task's history")
        else:
            parser.add_argument("name", metavar="NAME", help=f"name of the {name} in the contract")
            add_input(parser, f"input of the {name}")
        add_json(parser)
        add_options(parser)


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command about one task."""
    parser.add_argument("workflow_id", metavar="WORKFLOW_ID", help="id of the task")
    parser.add_argument("--run-id", default="", metavar="ID", help="id of the run (the newest)")


def run(arguments: argparse.Namespace) -> int:
    """Run a command; return its exit code."""
    commands = {"list": _list, "status": _status, "watch": _watch, "result": _result}
    command = commands.get(arguments.command, _end if arguments.command in _ENDING else _handle)
    return run_with_client(command, arguments)


def _list(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    from contextunity.gen.contextunity.worker import TaskState

    from contextunity.core import codec

    found = client.list_tasks(
        workflow_type=arguments.workflow_type,
        status=arguments.status,
        started_after=arguments.since,
        started_before=arguments.until,
        page_size=min(arguments.limit + 1, 1000),
    )
    tasks = list(itertools.islice(found, arguments.limit + 1))
    has_more = len(tasks) > arguments.limit
    del tasks[arguments.limit :]
    if arguments.json:
        rows = [codec.to_dict(task, preserving_proto_field_name=True) for task in tasks]
        for row, task in zip(rows, tasks, strict=True):
            row["status"] = _word(TaskState(task.status).name)
        print_json({"tasks": rows, "has_more": has_more})
        return 0
    if not tasks:
        say("no tasks")
        return 0
    print_table(
        ("workflow_id", "status", "workflow_type", "started", "took", "tenant_id"),
        [
            (
                task.workflow_id,
                _word(TaskState(task.status).name),
                task.workflow_type,
                ago(task.started_at),
                seconds_text(task.closed_at - task.started_at) if task.closed_at and task.started_at else "",
                task.tenant_id,
            )
            for task in tasks
        ],
    )
    if has_more:
        complain(f"there are more; --limit {arguments.limit * 10} shows them, --since and --status fewer")
    return 0


def _status(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    answer = _ask(client, arguments)
    if arguments.json:
        print_json(answer.payload)
    else:
        _show_status(answer.payload, arguments)
    return 0


def _watch(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    return follow(client.task(arguments.workflow_id, run_id=arguments.run_id), arguments)


def _result(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    if arguments.no_wait:
        last = _ask(client, arguments)
    else:
        try:
            last = last_of(client.watch(arguments.workflow_id, run_id=arguments.run_id))
        except KeyboardInterrupt:
            return stopped_watching(arguments, "result", arguments.workflow_id)
    match last.payload.get("status"):
        case "completed" if arguments.json:
            print_json(last.payload.get("result"))
            return 0
        case "running" | "started" | "unknown":
            text = f"the task has not ended yet; wait for it with\n  {_again(arguments)}"
            return fail(arguments, FAILED, "the task has not ended yet", text=text, code="NOT_ENDED")
        case _:
            return show_end(last, arguments)


def _ask(client: SyncWorkerClient, arguments: argparse.Namespace) -> Answer[TaskStatus]:
    from contextunity.gen.contextunity.worker import GetTaskStatusRequest

    from ..client import methods

    request = GetTaskStatusRequest(
        workflow_id=arguments.workflow_id, run_id=arguments.run_id, tenant_id=client.tenant_id
    )
    return client.call(methods.GET_TASK_STATUS, request)


def _again(arguments: argparse.Namespace) -> str:
    return follow_up(arguments, "result", arguments.workflow_id)


def _show_status(data: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    shown = ("workflow_id", "run_id", "workflow_type", "status", "tenant_id", "task_queue", "started_at", "closed_at")
    for name in (*shown, "error", "reason", "notice"):
        if data.get(name):
            say(f"{name:<14} {data[name]}")
    progress = progress_text(data.get("progress"))
    if progress:
        say(f"{'progress':<14} {progress}")
    for each in data.get("pending_activities") or ():
        last = f": {each['last_failure']}" if each.get("last_failure") else ""
        say(f"{'activity':<14} {each.get('activity_type')} {each.get('state')}, attempt {each.get('attempt')}{last}")
    if data.get("result"):
        say("result")
        for line in fields_text(data["result"], "  "):
            say(line)
    if data.get("status") == "running":
        say(f"\nFollow it:\n  {follow_up(arguments, 'watch', str(data['workflow_id']))}")


def _state(text: str) -> str:
    """Return a state in the service's form, also for its name in the proto."""
    return text.lower().replace("-", "_").removeprefix("task_state_")


def _word(name: str | None) -> str:
    return (name or "unknown").lower()


def _moment(text: str) -> datetime:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found is not None:
        return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write 2030-01-31T08:00Z, or 90s, 15m, 2h, 7d"
        ) from None
    return moment if moment.tzinfo is not None else moment.astimezone()


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


_ENDING = ("cancel", "terminate")
_HANDLERS = ("signal", "query", "update")


def _end(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    task = client.task(arguments.workflow_id, run_id=arguments.run_id)
    if arguments.command == "cancel":
        reference, said = task.cancel(reason=arguments.reason), "asked to cancel; see its status with"
    else:
        reference, said = task.terminate(reason=arguments.reason), "terminated; see its status with"
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
