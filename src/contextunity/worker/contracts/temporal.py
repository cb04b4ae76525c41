"""Compare the Temporal options of two versions: names, task queues, ids, policies, timeouts, retries and schedules."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .findings import Findings, Place
from .schema import Element, Schema, enum_name, plain_text

__all__ = ["Pairs", "compare_temporal", "match_elements"]

_NO_LIMIT = float("inf")
_TASK_TIMEOUT = 10.0
"""The server's default timeout of a workflow task, in seconds."""

_REUSE, _CONFLICT = "id_reuse_policy", "workflow_id_conflict_policy"
_DEFAULTS = {
    _REUSE: "WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE",
    _CONFLICT: "WORKFLOW_ID_CONFLICT_POLICY_FAIL",
    "parent_close_policy": "PARENT_CLOSE_POLICY_TERMINATE",
    "overlap": "SCHEDULE_OVERLAP_SKIP",
}
"""Defaults of policies; setting a policy to its default is no change."""

_JUDGED: Mapping[str, Collection[str]] = {
    "workflow": {
        "query", "signal", "update", "execution_timeout", "id", "id_reuse_policy", "parent_close_policy",
        "retry_policy", "run_timeout", "task_queue", "task_timeout", "wait_for_cancellation", "name",
        "search_attributes", "aliases", "workflow_id_conflict_policy", "versioning_behavior",
        "typed_search_attributes", "enable_eager_start", "priority", "cli",
    },
    "activity": {
        "task_queue", "schedule_to_close_timeout", "schedule_to_start_timeout", "start_to_close_timeout",
        "heartbeat_timeout", "retry_policy", "name", "wait_for_cancellation", "priority",
    },
    "query": {"name", "cli"},
    "signal": {"name", "cli"},
    "update": {"id", "validate", "wait_policy", "name", "wait_for_stage", "cli"},
}  # fmt: skip
"""Options that have their own rule, or that break nobody; any other change is reported as TEMPORAL_OPTION_CHANGED."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Map the elements of the old version to those of the new one.

    Attributes:
        same: new elements by kind and full name of the old ones.
    """

    same: Mapping[tuple[str, str], Element]

    def find(self, kind: str, full_name: str) -> Element | None:
        """Return the new element for an old one; None if it was removed."""
        return self.same.get((kind, full_name))


def match_elements(old: Schema, new: Schema) -> Pairs:
    """Pair elements by the method's name or, if that is gone, by the Temporal name."""
    by_method = {(each.kind, each.full_name): each for each in new.elements}
    by_name: dict[tuple[str, str], Element] = {}
    for each in new.elements:
        for name in each.names:
            by_name.setdefault((each.kind, name), each)
    same: dict[tuple[str, str], Element] = {}
    for each in old.elements:
        found = by_method.get((each.kind, each.full_name)) or next(
            (by_name[each.kind, name] for name in each.names if (each.kind, name) in by_name), None
        )
        if found is not None:
            same[each.kind, each.full_name] = found
    return Pairs(same=same)


def compare_temporal(old: Schema, new: Schema, pairs: Pairs, findings: Findings) -> None:
    """Find changes of Temporal options and of ContextWorker's own options."""
    comparison = _Comparison(new, pairs, findings)
    for element in old.elements:
        now = pairs.find(element.kind, element.full_name)
        if now is None:
            comparison.removed(element)
        else:
            comparison.element(element, now)
    comparison.queues()
    _compare_services(old, new, findings)
    _compare_schedules(old, new, pairs, findings)


class _Comparison:
    def __init__(self, new: Schema, pairs: Pairs, findings: Findings) -> None:
        self._new = new
        self._pairs = pairs
        self._findings = findings
        self._named: dict[tuple[str, str], list[Element]] = {}
        for each in new.elements:
            for name in each.names:
                self._named.setdefault((each.kind, name), []).append(each)
        self._moved: dict[tuple[str, str, Place, Place], list[Element]] = {}

    def add(self, rule: str, old: Element, new: Element, text: str, option: str = "") -> None:
        self._findings.add(rule, old.full_name, text, new.place(option), old.place(option))

    def removed(self, old: Element) -> None:
        names = ", ".join(repr(name) for name in old.names)
        place = self._new.place_of(old.full_name)
        text = f"{old.kind} {names} is no longer declared"
        self._findings.add(f"{old.kind.upper()}_REMOVED", old.full_name, text, place, old.place())

    def element(self, old: Element, new: Element) -> None:
        self._names(old, new)
        types = [(each.method.input_type, each.method.output_type) for each in (old, new)]
        # For the same method, buf's own rules report it.
        if new.full_name != old.full_name and types[0] != types[1]:
            form = " → ".join(each.removeprefix(".") for each in types[1])
            self.add(
                f"{old.kind.upper()}_NAME_CHANGED", old, new, f"name {old.name!r} now names another method: {form}"
            )
        # Queries, signals and updates are compared with their workflow.
        if old.kind in ("workflow", "activity") and old.task_queue != new.task_queue:
            place = (_queue_place(old), _queue_place(new))
            self._moved.setdefault((old.task_queue, new.task_queue, *place), []).append(old)
        if new.is_internal and not old.is_internal:
            text = f"{old.kind} {old.name!r} became internal_method, so callers are rejected"
            self._findings.add("METHOD_BECAME_INTERNAL", old.full_name, text, new.place(), old.place())
        match old.kind:
            case "workflow":
                self._workflow(old, new)
            case "activity":
                self._activity(old, new)
            case "update":
                self._update(old, new)
            case _:
                pass
        self._unjudged(old, new)

    def queues(self) -> None:
        """Add one finding per declaration of a queue, however many elements inherit it."""
        for (before, after, was, now), elements in self._moved.items():
            text = f"task_queue {before!r} → {after!r}"
            path = elements[0].full_name
            if len({each.full_name for each in elements}) > 1:
                path = elements[0].service.full_name
                text += f", of {', '.join(each.name for each in elements)}"
            self._findings.add("TASK_QUEUE_CHANGED", path, text, now, was)

    def _names(self, old: Element, new: Element) -> None:
        for index, name in enumerate(old.names):
            holders = self._named.get((old.kind, name), [])
            if any(each.full_name == new.full_name for each in holders):
                continue
            rule = f"{old.kind.upper()}_NAME_CHANGED" if index == 0 else "WORKFLOW_ALIAS_REMOVED"
            option = "name" if index == 0 else "aliases"
            text = f"name {name!r} → {new.name!r}" if index == 0 else f"{name!r} is no longer among aliases"
            if holders:
                text = f"name {name!r} now names {holders[0].full_name}"
            elif index == 0 and old.kind == "workflow":
                text += f", and {name!r} is not among aliases"
            self.add(rule, old, new, text, option)

    def _changed(self, old: Element, new: Element, rule: str, option: str) -> None:
        """Add a finding if an enum, bool or text option has another meaning."""
        before, after = _plain(old.options, option), _plain(new.options, option)
        if before != after:
            self.add(rule, old, new, f"{option} {_shown(before)} → {_shown(after)}", option)

    def _workflow(self, old: Element, new: Element) -> None:
        before, after = plain_template(old.get("id")), plain_template(new.get("id"))
        if before != after:
            self.add("WORKFLOW_ID_CHANGED", old, new, f"id {_shown(before)} → {_shown(after)}", "id")
        if _policies(old) != _policies(new):
            self._changed(old, new, "ID_REUSE_POLICY_CHANGED", _REUSE)
            self._changed(old, new, "ID_CONFLICT_POLICY_CHANGED", _CONFLICT)
        self._changed(old, new, "PARENT_CLOSE_POLICY_CHANGED", "parent_close_policy")
        self._changed(old, new, "WAIT_FOR_CANCELLATION_CHANGED", "wait_for_cancellation")
        self._changed(old, new, "VERSIONING_BEHAVIOR_CHANGED", "versioning_behavior")
        self._bound(old, new, "execution_timeout", _NO_LIMIT, _NO_LIMIT)
        # A run cannot be longer than the whole execution.
        whole = (_seconds(old, "execution_timeout", _NO_LIMIT), _seconds(new, "execution_timeout", _NO_LIMIT))
        self._bound(old, new, "run_timeout", *whole)
        self._bound(old, new, "task_timeout", _TASK_TIMEOUT, _TASK_TIMEOUT)
        self._retries(old, new, default=1)
        self._search_attributes(old, new)
        for kind in ("query", "signal", "update"):
            self._bindings(old, new, kind)

    def _activity(self, old: Element, new: Element) -> None:
        self._changed(old, new, "WAIT_FOR_CANCELLATION_CHANGED", "wait_for_cancellation")
        whole = [_seconds(each, "schedule_to_close_timeout", _NO_LIMIT) for each in (old, new)]
        self._bound(old, new, "schedule_to_close_timeout", _NO_LIMIT, _NO_LIMIT)
        # Waiting and one attempt are both part of the whole.
        self._bound(old, new, "schedule_to_start_timeout", *whole)
        self._bound(old, new, "start_to_close_timeout", *whole)
        self._bound(old, new, "heartbeat_timeout", _NO_LIMIT, _NO_LIMIT)
        if _seconds(old, "heartbeat_timeout", 0) and not _seconds(new, "heartbeat_timeout", 0):
            before = _time(_seconds(old, "heartbeat_timeout", 0))
            self.add("HEARTBEAT_TIMEOUT_REMOVED", old, new, f"heartbeat_timeout {before} → none", "heartbeat_timeout")
        if old.heartbeats != new.heartbeats:
            self.add("HEARTBEATS_CHANGED", old, new, f"heartbeats {old.heartbeats} → {new.heartbeats}")
        self._retries(old, new, default=0)

    def _bound(self, old: Element, new: Element, option: str, old_default: float, new_default: float) -> None:
        before = min(_seconds(old, option, old_default), old_default if option != "task_timeout" else _NO_LIMIT)
        after = min(_seconds(new, option, new_default), new_default if option != "task_timeout" else _NO_LIMIT)
        # A timeout that shrinks only with the total one is reported once, for the total one.
        if after < before and _seconds(new, option, 0) != _seconds(old, option, 0):
            self.add("TIMEOUT_SHRUNK", old, new, f"{option} {_time(before)} → {_time(after)}", option)

    def _retries(self, old: Element, new: Element, *, default: int) -> None:
        before, after = _attempts(old, default), _attempts(new, default)
        if after < before:
            text = f"retry_policy.max_attempts {_count(before)} → {_count(after)}"
            self.add("RETRY_ATTEMPTS_REDUCED", old, new, text, "retry_policy")
        added = _error_types(new) - _error_types(old)
        if added and after > 1:
            text = f"retry_policy.non_retryable_error_types has {', '.join(sorted(added))} now"
            self.add("RETRY_ERROR_ADDED", old, new, text, "retry_policy")

    def _search_attributes(self, old: Element, new: Element) -> None:
        before, after = _attributes(old), _attributes(new)
        for name, (kind, value, option) in before.items():
            if name not in after:
                self.add("SEARCH_ATTRIBUTE_REMOVED", old, new, f"{option} no longer sets {name}", option)
                continue
            other_kind, other_value, _ = after[name]
            # Attributes without a type have the type of their value, which the wire rules check.
            if kind and other_kind and kind != other_kind:
                text = f"{option} {name}: {kind} → {other_kind}"
                self.add("SEARCH_ATTRIBUTE_TYPE_CHANGED", old, new, text, option)
            if value != other_value:
                text = f"{option} {name}: {value} → {other_value}"
                self.add("SEARCH_ATTRIBUTE_VALUE_CHANGED", old, new, text, option)

    def _bindings(self, old: Element, new: Element, kind: str) -> None:
        now = dict(new.bindings(kind))
        for full_name, entry in old.bindings(kind):
            found = self._pairs.find(kind, full_name)
            if found is None:
                continue  # It is reported as removed, or was never declared.
            other = now.get(found.full_name)
            if other is None:
                text = f"{kind} {found.name!r} was removed from the workflow"
                self.add(f"WORKFLOW_{kind.upper()}_REMOVED", old, new, text, kind)
                continue
            if getattr(entry, "start", False) and not getattr(other, "start", False):
                self.add("WITH_START_REMOVED", old, new, f"{kind} {found.name!r} lost start: true", kind)
            if kind == "update":
                self._binding_of_update(old, new, full_name, entry, other)

    def _binding_of_update(self, old: Element, new: Element, update: str, entry: Any, other: Any) -> None:
        before = next(each for each in old.schema.elements if (each.kind, each.full_name) == ("update", update))
        after = self._pairs.same["update", update]
        # If the update's own option was removed, it is reported there.
        told = before.get("validate", False) and not after.get("validate", False)
        if _validates(before, entry) and not _validates(after, other) and not told:
            self.add("UPDATE_VALIDATE_REMOVED", old, new, f"update {after.name!r} lost validate", "update")
        policies = (_plain(entry, _CONFLICT), _plain(other, _CONFLICT))
        if getattr(entry, "start", False) and getattr(other, "start", False) and policies[0] != policies[1]:
            text = f"update {after.name!r}: {_CONFLICT} {_shown(policies[0])} → {_shown(policies[1])}"
            self.add("ID_CONFLICT_POLICY_CHANGED", old, new, text, "update")

    def _update(self, old: Element, new: Element) -> None:
        before, after = plain_template(old.get("id")), plain_template(new.get("id"))
        if before != after:
            self.add("UPDATE_ID_CHANGED", old, new, f"id {_shown(before)} → {_shown(after)}", "id")
        if old.get("validate", False) and not new.get("validate", False):
            self.add("UPDATE_VALIDATE_REMOVED", old, new, "validate true → false", "validate")
        stages = [each.enum("wait_for_stage") or each.enum("wait_policy") for each in (old, new)]
        if stages[0] != stages[1]:
            text = f"wait_for_stage {_shown(stages[0])} → {_shown(stages[1])}"
            self.add("UPDATE_WAIT_CHANGED", old, new, text, "wait_for_stage")

    def _unjudged(self, old: Element, new: Element) -> None:
        before, after = (_others(each.options, _JUDGED[old.kind]) for each in (old, new))
        for option in sorted({*before, *after}):
            if before.get(option) != after.get(option):
                text = f"{option} {_shown(before.get(option, ''))} → {_shown(after.get(option, ''))}"
                self.add("TEMPORAL_OPTION_CHANGED", old, new, text, option)


def _compare_services(old: Schema, new: Schema, findings: Findings) -> None:
    services = {each.full_name: each for each in new.services}
    for service in old.services:
        other = services.get(service.full_name)
        if other is None:
            continue
        before = _others(service.annotation, {"task_queue"}) if service.annotation is not None else {}
        after = _others(other.annotation, {"task_queue"}) if other.annotation is not None else {}
        for option in sorted({*before, *after}):
            if before.get(option) != after.get(option):
                text = f"{option} {_shown(before.get(option, ''))} → {_shown(after.get(option, ''))}"
                now, was = new.place(other.file, *other.path), old.place(service.file, *service.path)
                findings.add("TEMPORAL_OPTION_CHANGED", service.full_name, text, now, was)


def _compare_schedules(old: Schema, new: Schema, pairs: Pairs, findings: Findings) -> None:
    now = {schedule.id: (element, schedule) for element in new.elements for schedule in element.schedules}
    for element in old.elements:
        for schedule in element.schedules:
            was, other = element.place(), pairs.find(element.kind, element.full_name)
            found = now.get(schedule.id)
            if found is None:
                place = other.place() if other is not None else None
                text = f"schedule {schedule.id!r} is no longer declared"
                findings.add("SCHEDULE_REMOVED", element.full_name, text, place, was)
                continue
            holder, changed = found
            if other is None or holder.full_name != other.full_name:
                text = f"schedule {schedule.id!r} starts {holder.name!r} instead of {element.name!r}"
                findings.add("SCHEDULE_WORKFLOW_CHANGED", element.full_name, text, holder.place(), was)
            _compare_schedule(element, holder, schedule, changed, findings)


def _compare_schedule(element: Element, holder: Element, before: Any, after: Any, findings: Findings) -> None:
    def add(rule: str, option: str, was: str, now: str) -> None:
        text = f"schedule {before.id!r}: {option} {_shown(was)} → {_shown(now)}"
        findings.add(rule, element.full_name, text, holder.place(), element.place())

    overlaps = _plain(before, "overlap"), _plain(after, "overlap")
    if overlaps[0] != overlaps[1]:
        add("SCHEDULE_OVERLAP_CHANGED", "overlap", *overlaps)
    for option, default in (("cron", ""), ("timezone", "UTC"), ("input_json", "{}")):
        was, now = (" ".join((getattr(each, option) or default).split()) for each in (before, after))
        if was != now and not (option == "input_json" and _same_json(was, now)):
            add("SCHEDULE_TIME_CHANGED", option, was, now)
    windows = [_duration(each.catchup_window) if each.HasField("catchup_window") else 60.0 for each in (before, after)]
    if windows[1] < windows[0]:
        add("SCHEDULE_CATCHUP_SHRUNK", "catchup_window", _time(windows[0]), _time(windows[1]))


def _same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False  # Workers reject it at start; here both are compared as text.


def _queue_place(element: Element) -> Place:
    """Return where an element's queue is declared: at the element, at its service, or nowhere."""
    if element.get("task_queue"):
        return element.place("task_queue")
    if element.service.annotation is not None:
        number = element.schema.extension("temporal.v1.service").number
        return element.schema.place(element.service.file, *element.service.path, 3, number)
    return element.schema.place(element.service.file, *element.service.path)


_TEMPLATE = re.compile(r"\$\{!\s*(.*?)\s*\}", re.DOTALL)
_ASSIGNMENT = re.compile(r"\s*(?:root\.)?(?:(\w+)\.)?([\w-]+)\s*=\s*(.*?)\s*")


def plain_template(source: str) -> str:
    """Normalize the layout within `${! … }` of an id expression."""
    return _TEMPLATE.sub(lambda match: "${! " + plain_text(match[1]) + " }", source)


def _attributes(element: Element) -> dict[str, tuple[str, str, str]]:
    """Return type, value and option of each search attribute by name; the type is empty if not declared."""
    found: dict[str, tuple[str, str, str]] = {}
    for option in ("search_attributes", "typed_search_attributes"):
        for line in str(element.get(option)).splitlines():
            match = _ASSIGNMENT.fullmatch(line)
            if match is not None:
                value = plain_text(match[3]).removeprefix("this.")
                found[match[2]] = (match[1] or "", value, option)
            elif line.strip() and not line.strip().startswith("#"):
                # Bloblang beyond assignments: compare it as a whole.
                found[plain_text(line)] = ("", "", option)
    return found


def _policies(element: Element) -> tuple[str, str]:
    """Return both policies for an id that is in use, defaults filled in."""
    reuse, conflict = _plain(element.options, _REUSE), _plain(element.options, _CONFLICT)
    if reuse.endswith("TERMINATE_IF_RUNNING"):
        return _DEFAULTS[_REUSE], "WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING"
    return reuse, conflict


def _plain(options: Any, name: str) -> str:
    """Return an enum, bool or text option as text, with its default filled in."""
    field = options.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return ""
    if field.enum_type is not None:
        return enum_name(options, name) or _DEFAULTS.get(name, "")
    value = getattr(options, name)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _others(options: Any, known: Collection[str]) -> dict[str, str]:
    """Return the options without a rule of their own as text, including those of later versions."""
    return {
        field.name: str(value).strip().replace("\n", " ")
        for field, value in options.ListFields()
        if field.name not in known
    }


def _validates(update: Element, entry: Any) -> bool:
    if "validate" in entry.DESCRIPTOR.fields_by_name and entry.HasField("validate"):
        return bool(entry.validate)
    return bool(update.get("validate", False))


def _duration(value: Any) -> float:
    return float(value.seconds) + float(value.nanos) / 1e9


def _seconds(element: Element, option: str, default: float) -> float:
    """Return a timeout; zero means none, as for the server."""
    if not element.has(option):
        return default
    return _duration(element.get(option)) or default


def _attempts(element: Element, default: int) -> float:
    """Return the number of attempts: `default` without a retry policy; zero means unlimited."""
    attempts = int(element.get("retry_policy").max_attempts) if element.has("retry_policy") else default
    return attempts or _NO_LIMIT


def _error_types(element: Element) -> set[str]:
    return set(element.get("retry_policy").non_retryable_error_types) if element.has("retry_policy") else set()


def _time(seconds: float) -> str:
    return "none" if seconds == _NO_LIMIT else f"{seconds:g}s"


def _count(attempts: float) -> str:
    return "without end" if attempts == _NO_LIMIT else f"{attempts:g}"


def _shown(value: str) -> str:
    return value or "none"
