"""Output for running tasks: a progress line for people, JSON lines for programs."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from .connection import DEFAULT_TARGET, FAILED, STOPPED
from .output import console, fail, print_json, printable, say, value_text

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import TaskStatus
    from rich.console import Console
    from rich.progress import Progress

    from ..client import Answer as _Answer
    from ..client import SyncTaskHandle

    Answer = _Answer[TaskStatus]

__all__ = ["fields_text", "follow", "follow_up", "last_of", "progress_text", "show_end", "stopped_watching"]

_PLAIN_SECONDS = 1.0
"""Seconds between progress lines if the output is not a terminal."""


def follow(task: SyncTaskHandle, arguments: argparse.Namespace) -> int:
    """Show a task until it ends; Ctrl-C detaches, and the task keeps running."""
    try:
        last = _follow_as_json(task) if arguments.json else _follow_for_people(task)
    except KeyboardInterrupt:
        return stopped_watching(arguments, "watch", task.workflow_id)
    return show_end(last, arguments)


def stopped_watching(arguments: argparse.Namespace, command: str, workflow_id: str) -> int:
    """Report that the command was interrupted while the task keeps running, and return the exit code."""
    message = "stopped watching; the task is still running"
    again = follow_up(arguments, command, workflow_id)
    return fail(arguments, STOPPED, message, text=f"{message}. Come back with\n  {again}", code="STOPPED")


def show_end(answer: Answer, arguments: argparse.Namespace) -> int:
    """Report the end of a task: the result to the standard output, a failure to the standard error.

    Returns:
        The exit code.
    """
    data = answer.payload
    if data.get("status") == "completed":
        if not arguments.json:
            for line in fields_text(data.get("result")):
                say(line)
        return 0
    from ..client import TaskFailedError

    message, lines = str(TaskFailedError(answer.body)), list[str]()
    for depth, cause in enumerate(data.get("failure") or ()):
        told = " ".join(filter(None, (_cause_name(cause), str(cause.get("message", "")), _cause_facts(cause))))
        lines.append(f"{'  ' * (depth + 1)}{told}")
    details = {name: data[name] for name in ("status", "reason", "failure") if data.get(name)}
    return fail(arguments, FAILED, message, text="\n".join([message, *lines]), code="TASK_FAILED", **details)


def follow_up(arguments: argparse.Namespace, command: str, *words: str) -> str:
    """Return a command for the same service, for the user to run next."""
    target = [] if arguments.target == DEFAULT_TARGET else ["--target", arguments.target]
    tenant = ["--tenant", arguments.tenant] if arguments.tenant else []
    return f"{arguments.program} {shlex.join([command, *words, *tenant, *target])}"


def progress_text(progress: Mapping[str, Any] | None) -> str:
    """Return a workflow's progress on one line: words first, then numbers by name.

    The message's type is unknown here: times are omitted, and nested objects contribute their numbers.
    """
    words, numbers = list[str](), list[str]()
    for name, value in _leaves(progress or {}):
        if name.endswith(("_at", "_total")) or isinstance(value, list | dict) or value in (None, "", False):
            continue
        text = value_text(value)
        if isinstance(value, str) and text == value and not value.isdigit():
            words.append(_enum_word(name, value))
        else:
            numbers.append(f"{name.removesuffix('_done')} {text}")
    return "  ".join([*words, *numbers])


def part_done(progress: Mapping[str, Any] | None) -> float | None:
    """Return the completed fraction, 0 to 1, if two fields give it, such as `bytes_done` and `bytes_total`."""
    leaves = dict(_leaves(progress or {}))
    for name, value in leaves.items():
        stem, _, last = name.rpartition("_")
        total = leaves.get(f"{stem}_total" if stem else "total")
        if last in ("done", "completed") and total is not None:
            with contextlib.suppress(ValueError, TypeError, ZeroDivisionError):
                return min(max(float(value) / float(total), 0.0), 1.0)
    return None


def fields_text(value: Any, indent: str = "") -> Iterator[str]:
    """Return a plain value on several lines: one `name: value` per field, nested objects indented."""
    if not isinstance(value, dict):
        if value is not None:
            yield f"{indent}{value_text(value)}"
        return
    fields = cast("dict[str, Any]", value)
    width = max((len(name) for name, each in fields.items() if not isinstance(each, dict)), default=0)
    for name, each in sorted(fields.items(), key=lambda item: (isinstance(item[1], dict), item[0])):
        if isinstance(each, dict) and each:
            yield f"{indent}{name}"
            yield from fields_text(each, f"{indent}  ")
        else:
            yield f"{indent}{name:<{width}}  {value_text(each)}"


def last_of(answers: Iterable[Answer], show: Callable[[Answer], None] = lambda _: None) -> Answer:
    """Show each status of a watch, and return the last one."""
    last: Answer | None = None
    for last in _received(answers):
        show(last)
    assert last is not None, "a watch ends with the task's end"
    return last


def _received(answers: Iterable[Answer]) -> Iterator[Answer]:
    """Receive answers in another thread, and wait for them here.

    If Ctrl-C interrupts grpcio's iterator, its lock may stay acquired, which hangs the command, or be released twice.
    The other thread ends when the client closes.
    """
    received = SimpleQueue["Answer | BaseException | None"]()

    def receive() -> None:
        try:
            for answer in answers:
                received.put(answer)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            received.put(error)
        else:
            received.put(None)

    threading.Thread(target=receive, name="watch", daemon=True).start()
    while (item := received.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _follow_as_json(task: SyncTaskHandle) -> Answer:
    return last_of(task.watch(), lambda answer: print_json(answer.payload, pretty=False))


def _follow_for_people(task: SyncTaskHandle) -> Answer:
    screen = console()
    if not screen.is_terminal:
        return last_of(task.watch(), _Lines().show)
    with _Bar(screen) as bar:
        return last_of(task.watch(), bar.show)


class _Lines:
    """Prints a line for each change of status, and for progress at intervals."""

    def __init__(self) -> None:
        self._shown = ("", "")
        self._moment = 0.0

    def show(self, answer: Answer) -> None:
        now = time.monotonic()
        status, text = _line(answer)
        if status != self._shown[0] or (text != self._shown[1] and now - self._moment >= _PLAIN_SECONDS):
            self._shown, self._moment = (status, text), now
            done = part_done(answer.payload.get("progress")) if status == "running" else None
            say(f"{status:<10} {'' if done is None else f'{done:4.0%}  '}{text}".rstrip())


class _Bar:
    """Prints one line that changes in place."""

    def __init__(self, screen: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, min_width=9)),
            BarColumn(bar_width=20, table_column=Column(no_wrap=True, min_width=20)),
            TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            console=screen,
            expand=True,
        )
        self._task = self._progress.add_task("", total=None, status="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, answer: Answer) -> None:
        status, text = _line(answer)
        done = 1.0 if status == "completed" else part_done(answer.payload.get("progress"))
        self._progress.update(
            self._task,
            description=printable(text),
            status=printable(status),
            completed=done or 0.0,
            total=None if done is None else 1.0,
        )


def _line(answer: Answer) -> tuple[str, str]:
    data = answer.payload
    waiting = [
        f"{each.get('activity_type')} failed, attempt {each.get('attempt')}: {each['last_failure']}"
        for each in data.get("pending_activities") or ()
        if each.get("last_failure")
    ]
    parts = (progress_text(data.get("progress")), *waiting[:1], data.get("notice") or "")
    return str(data.get("status", "")), "  ".join(filter(None, parts))


def _leaves(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    # Payloads have no defined order.
    for name, value in sorted(data.items()):
        if isinstance(value, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", value))
        else:
            yield name, value


def _enum_word(name: str, value: str) -> str:
    """Return a value such as HARVEST_STAGE_RUNNING of a field `stage` without the prefix; other texts unchanged."""
    _, prefix, word = value.partition(f"{name.upper()}_")
    return word.lower().replace("_", " ") if prefix and word and value.isupper() else value


def _cause_name(cause: Mapping[str, Any]) -> str:
    name = cause.get("activity_type") or cause.get("workflow_type") or cause.get("type") or ""
    return f"{str(cause.get('kind', '')).replace('_', ' ')} {name}".strip() + ":"


def _cause_facts(cause: Mapping[str, Any]) -> str:
    facts = [f"attempt {cause['attempt']}"] if cause.get("attempt") else []
    facts += ["non-retryable"] if cause.get("non_retryable") else []
    facts += [str(cause["retry_state"]).lower().replace("_", " ")] if cause.get("retry_state") else []
    return f"({', '.join(facts)})" if facts else ""
