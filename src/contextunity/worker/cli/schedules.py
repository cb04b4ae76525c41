"""`contextworker schedules`: list, register and control schedules."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from .commands import COMMANDS, Commands
from .connection import FAILED, UsageError, add_json, add_options, run_with_client
from .inputs import read_text
from .output import ago, complain, print_json, print_table, say
from .watching import follow_up

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import RegisterSchedulesResult, ScheduleStatus

    from ..client import Answer, SyncWorkerClient

# Each command imports what it needs, so that --help and usage errors are fast.

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
Lists, registers and controls schedules.

  contextworker schedules apply --diff --dry-run     shows what the schedules in contracts would change
  contextworker schedules apply schedules.toml       registers the schedules of a file
  contextworker schedules list
  contextworker schedules trigger nightly
"""
_STEPS = {
    "pause": "pause a schedule: it starts nothing",
    "resume": "resume a paused schedule",
    "trigger": "start a task of a schedule now",
    "delete": "delete a schedule; its running tasks continue",
}
_NOTED = ("pause", "resume")


def add_parser(commands: Commands) -> None:
    """Add the command `schedules`."""
    parser = commands.add_parser(
        "schedules",
        help=COMMANDS["schedules"][1],
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions: Commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    _add_common(actions.add_parser("list", help="list schedules"))
    _add_apply(actions.add_parser("apply", help="register the schedules of a file, or of the contracts"))
    for name, summary in _STEPS.items():
        aliases = ["unpause"] if name == "resume" else []
        step = actions.add_parser(name, help=summary, aliases=aliases)
        step.add_argument("schedule_id", metavar="ID", help="name of the schedule")
        if name in _NOTED:
            step.add_argument("--note", default="", metavar="TEXT", help="why, for people; kept with the schedule")
        _add_common(step)


def run(arguments: argparse.Namespace) -> int:
    """Run an action; return its exit code."""
    if arguments.action == "unpause":
        arguments.action = "resume"
    match arguments.action:
        case "list":
            return run_with_client(_list, arguments)
        case "apply":
            return run_with_client(_apply, arguments)
        case _:
            return run_with_client(_step, arguments)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", default="", metavar="NAME", help="project that the schedules belong to")
    add_json(parser)
    add_options(parser)


def _add_apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="JSON or TOML with the payload of RegisterSchedules; - reads JSON from the standard input. "
        "Without it, the schedules in the contracts of the installed modules",
    )
    parser.add_argument(
        "--module",
        action="append",
        dest="only",
        metavar="NAME",
        help="without FILE: only the contracts of this module; repeatable",
    )
    parser.add_argument("--diff", action="store_true", help="show the differences of each schedule")
    parser.add_argument("--prune", action="store_true", help="remove the project's other schedules")
    parser.add_argument("--partial", action="store_true", help="apply the valid ones if others are invalid")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    _add_common(parser)


def _list(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    from contextunity.gen.contextunity.worker import ListSchedulesRequest

    from ..client import methods

    request = ListSchedulesRequest(project_id=arguments.project, tenant_id=arguments.tenant)
    answer = client.call(methods.LIST_SCHEDULES, request)
    if arguments.json:
        print_json({"schedules": answer.payload.get("schedules", [])})
    elif not answer.body.schedules:
        say("no schedules")
    else:
        _show_list(answer.body.schedules)
    return 0


def _show_list(schedules: list[ScheduleStatus]) -> None:
    headers = ("schedule_id", "workflow_type", "cron", "timezone", "next", "last", "tenant_id", "project_id", "note")
    rows = list[tuple[str, ...]]()
    for each in schedules:
        entry = each.schedule
        if entry is None:
            continue
        upcoming = "paused" if entry.paused else _moment(each.next_runs[0] if each.next_runs else None)
        last = ago(each.recent_runs[-1].started_at) if each.recent_runs else ""
        times = (entry.cron, entry.timezone, upcoming, last)
        owner = (each.tenant_id, each.project_id, each.note or entry.description)
        rows.append((entry.schedule_id, entry.workflow_type, *times, *owner))
    print_table(headers, rows)


def _step(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    from contextunity.gen.contextunity.worker import ScheduleRequest

    from ..client import methods

    method = {
        "pause": methods.PAUSE_SCHEDULE,
        "resume": methods.RESUME_SCHEDULE,
        "trigger": methods.TRIGGER_SCHEDULE,
        "delete": methods.DELETE_SCHEDULE,
    }[arguments.action]
    request = ScheduleRequest(
        schedule_id=arguments.schedule_id,
        project_id=arguments.project,
        tenant_id=arguments.tenant,
        note=arguments.note if arguments.action in _NOTED else "",
    )
    answer = client.call(method, request)
    if arguments.json:
        print_json(answer.payload)
    else:
        say(f"{answer.body.schedule_id}: {answer.body.status}")
        if answer.body.workflow_id:
            say(f"  {follow_up(arguments, 'watch', answer.body.workflow_id)}")
    return 0


def _apply(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    answer, dry_run = _register(client, arguments)
    if arguments.json:
        print_json(answer.payload)
    else:
        for line in result_lines(answer.body, diff=arguments.diff, dry_run=dry_run):
            say(line)
    return FAILED if answer.body.faults else 0


def _register(client: SyncWorkerClient, arguments: argparse.Namespace) -> tuple[Answer[RegisterSchedulesResult], bool]:
    """Register; return the answer, and whether it was a dry run."""
    from contextunity.gen.contextunity.worker import RegisterSchedulesRequest

    from ..client import methods

    if arguments.file is None:
        request = RegisterSchedulesRequest(
            project_id=arguments.project,
            tenant_id=arguments.tenant,
            schedules=_declared(arguments.only, prune=arguments.prune),
            prune=arguments.prune,
            partial=arguments.partial,
            dry_run=arguments.dry_run,
        )
        return client.call(methods.REGISTER_SCHEDULES, request), request.dry_run
    if arguments.only:
        raise UsageError("--module goes with the schedules that contracts declare, and not with a file")
    payload = _with_flags(read_file(arguments.file), arguments)
    return client.call(methods.REGISTER_SCHEDULES, payload=payload), bool(payload.get("dry_run"))


def _declared(modules: list[str] | None, *, prune: bool) -> list[Any]:
    """Return the schedules in the contracts of the installed modules.

    Raises:
        UsageError: the modules or settings of this installation are invalid, or a name is unknown; or there are no
        schedules, so that all existing ones would be removed.
    """
    from contextunity.core.errors import CodecError, ContextUnityError

    from ..modules.discovery import boot
    from ..schedules import declared_schedules

    try:
        _, registry = boot()
        found = declared_schedules(registry, modules)
    except (ContextUnityError, CodecError) as error:
        raise UsageError(str(error)) from None
    if not found and prune:
        raise UsageError('no contract declares a schedule, so all would be removed; a FILE with "[]" asks for that')
    if not found:
        complain("no contract declares a schedule")
    return list(found)


def read_file(name: str) -> dict[str, Any]:
    """Read a file with the payload of RegisterSchedules; a JSON list is a list of entries.

    Args:
        name: `.toml`, otherwise JSON; - is the standard input.

    Raises:
        UsageError: it cannot be read, or has another form.
    """
    text = read_text(name)
    kind = "TOML" if name.endswith(".toml") else "JSON"
    try:
        data: Any = tomllib.loads(text) if kind == "TOML" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not {kind}: {error}") from None
    if isinstance(data, list):
        return {"schedules": data}
    if not isinstance(data, dict):
        raise UsageError(f"{name}: it holds {type(data).__name__} where schedules are due")
    return cast("dict[str, Any]", data)


def _with_flags(asked: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a payload with the values of the flags added.

    Raises:
        UsageError: file and flags have different projects or tenants.
    """
    payload = dict(asked)
    for key, given in (("project_id", arguments.project), ("tenant_id", arguments.tenant)):
        if given and payload.get(key, given) != given:
            raise UsageError(f"{arguments.file} says {key} {payload[key]!r}, but {given!r} was given; drop one")
        if given:
            payload[key] = given
    for key, flag in (("prune", arguments.prune), ("partial", arguments.partial), ("dry_run", arguments.dry_run)):
        if flag:
            payload[key] = True
    return payload


def result_lines(result: RegisterSchedulesResult, *, diff: bool, dry_run: bool) -> Iterator[str]:
    """Yield the lines that describe a registration.

    Args:
        result: the answer of RegisterSchedules.
        diff: show unchanged schedules, and the differences of others.
        dry_run: nothing was changed.
    """
    changes: dict[str, list[str]] = {}
    if diff:
        for difference in result.differences:
            changes.setdefault(difference.schedule_id, []).extend(
                f"    {sign} {difference.field}: {value}"
                for sign, value in (("-", difference.before), ("+", difference.after))
                if value
            )
    for sign, names in (("+", result.created), ("~", result.updated), ("-", result.removed)):
        for name in names:
            yield f"{sign} {name}"
            if sign == "~":
                yield from changes.get(name, ())
    if diff:
        yield from (f"= {name}" for name in result.unchanged)
    yield from (f"? {name}: skipped, its workflow needs args that the entry does not have" for name in result.skipped)
    for fault in result.faults:
        yield f"! {fault.schedule_id}"
        yield from (f"    {reason}" for reason in fault.reasons)
    counts = {
        "created": len(result.created),
        "updated": len(result.updated),
        "unchanged": len(result.unchanged),
        "removed": len(result.removed),
        "skipped": len(result.skipped),
        "faulty": len(result.faults),
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing to do"
    yield f"{told} (dry run: nothing was done)" if dry_run else told


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"
