"""Every rule of the gate, with its severity, who breaks and the way out, and the findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

__all__ = [
    "FAMILIES",
    "RULES",
    "Breaks",
    "ContractError",
    "Family",
    "Finding",
    "Findings",
    "Place",
    "Rule",
    "Severity",
    "order",
    "wire_rule",
]


class ContractError(Exception):
    """Base of the gate's errors.

    It is not a ContextUnityError, whose import loads the codec and the generated messages: buf starts its plugin
    several times per comparison, and each start would take three times as long.
    """


class Severity(Enum):
    """Severity of a finding. Warnings are errors with `--strict`."""

    ERROR = "error"
    WARNING = "warning"


class Family(Enum):
    """What a rule checks."""

    WIRE = "wire"
    TEMPORAL = "temporal"
    RULES = "rules"
    OPTIONS = "options"
    EXCEPTIONS = "exceptions"


FAMILIES = {
    Family.WIRE: "Names, numbers and types of the protos: buf's own rules",
    Family.TEMPORAL: "`temporal.v1` annotations",
    Family.RULES: "`buf.validate` rules",
    Family.OPTIONS: "`contextunity.worker` options",
    Family.EXCEPTIONS: "Exceptions",
}
"""Families of rules with what they check, in the order of reports."""


class Breaks(Enum):
    """Who stops working."""

    CALLERS = "callers"
    WORKERS = "workers on the old build"
    TASKS = "running tasks"
    SCHEDULES = "schedules"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One kind of change that the gate looks for.

    Attributes:
        id: name of the rule in reports and exceptions.
        what: what it finds.
        breaks: who stops working.
        way_out: what to do instead.
    """

    id: str
    family: Family
    severity: Severity
    what: str
    breaks: tuple[Breaks, ...]
    way_out: str


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a declaration or an option; line 0 if only the file is known.

    Attributes:
        path: path in the file's descriptor, as in its source code info.
    """

    file: str
    line: int = 0
    path: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One change that breaks somebody.

    Attributes:
        path: full name of the declaration, such as `acme.greet.v1.GreetService.Greet`; exceptions name it.
        text: what changed, in one line.
        new: place now; for a removed declaration, of the enclosing one; None if that was removed too.
        old: place before; None for a new declaration.
        breaks: who stops working.
        reason: reason of its exception; empty without one.
    """

    rule: Rule
    path: str
    text: str
    new: Place | None
    old: Place | None
    breaks: tuple[Breaks, ...]
    reason: str = ""

    def severity(self, *, strict: bool) -> Severity:
        """Its severity in this run."""
        return Severity.ERROR if strict else self.rule.severity


class Findings:
    """Findings of a comparison, in the order they were added, without duplicates."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Finding] = {}

    def add(
        self,
        rule: str,
        path: str,
        text: str,
        new: Place | None,
        old: Place | None,
        breaks: tuple[Breaks, ...] | None = None,
    ) -> None:
        """Add a finding of a rule by its id; give `breaks` if fewer break than the rule says."""
        known = RULES[rule]
        finding = Finding(
            rule=known, path=path, text=text, new=new, old=old, breaks=known.breaks if breaks is None else breaks
        )
        self._found.setdefault((finding.rule.id, finding.path, finding.text), finding)

    def sorted(self) -> list[Finding]:
        """Return all findings, sorted by file and line; those without a new place come first, by their old place."""
        return sorted(self._found.values(), key=order)


def order(finding: Finding) -> tuple[str, int, str, str]:
    """Sort key of findings: file, line, rule and path."""
    place = finding.new or finding.old or Place("")
    return (place.file, place.line, finding.rule.id, finding.path)


_CALLERS, _WORKERS, _TASKS, _SCHEDULES = Breaks.CALLERS, Breaks.WORKERS, Breaks.TASKS, Breaks.SCHEDULES
_EVERYBODY = (_CALLERS, _WORKERS, _TASKS, _SCHEDULES)

_WIRE = Rule(
    id="",
    family=Family.WIRE,
    severity=Severity.ERROR,
    what="",
    breaks=(_CALLERS, _WORKERS, _TASKS),
    way_out="Undo it; add a new field, method or version of the package, and keep the old one.",
)


def wire_rule(buf_id: str) -> Rule:
    """Return the rule for one of buf's own rules, by buf's name."""
    return replace(_WIRE, id=buf_id, what=f"buf's rule {buf_id}")


def _rules(family: Family, *rules: tuple[str, Severity, str, Sequence[Breaks], str]) -> dict[str, Rule]:
    return {
        name: Rule(id=name, family=family, severity=severity, what=what, breaks=tuple(breaks), way_out=way_out)
        for name, severity, what, breaks, way_out in rules
    }


_E, _W = Severity.ERROR, Severity.WARNING

_TEMPORAL = _rules(
    Family.TEMPORAL,
    (
        "WORKFLOW_REMOVED", _E, "A workflow is no longer declared, and none has its name as an alias.",
        (_CALLERS, _TASKS, _SCHEDULES),
        "Keep it, marked `deprecated`, until nothing runs, is scheduled or is started under its name.",
    ),
    (
        "WORKFLOW_NAME_CHANGED", _E, "The Temporal name of a workflow changed, or now names another method.",
        (_CALLERS, _TASKS, _SCHEDULES), "Keep the old `name`, or add it to `aliases`.",
    ),
    (
        "WORKFLOW_ALIAS_REMOVED", _E, "A name that a workflow had among its `aliases` is gone.",
        (_CALLERS, _TASKS, _SCHEDULES), "Keep it in `aliases` until nothing runs, is scheduled or is started under it.",
    ),
    (
        "ACTIVITY_REMOVED", _E, "An activity is no longer declared.", (_WORKERS, _TASKS),
        "Keep it until no run has it in its history.",
    ),
    (
        "ACTIVITY_NAME_CHANGED", _E, "The Temporal name of an activity changed, or now names another method.",
        (_WORKERS, _TASKS), "Keep the old `name`; histories have it, and activities have no aliases.",
    ),
    (
        "QUERY_REMOVED", _E, "A query is no longer declared.", (_CALLERS,),
        "Keep it, marked `deprecated`, until nobody uses it.",
    ),
    (
        "QUERY_NAME_CHANGED", _E, "The Temporal name of a query changed, or now names another method.", (_CALLERS,),
        "Keep the old `name`, or add another query.",
    ),
    (
        "SIGNAL_REMOVED", _E, "A signal is no longer declared.", (_CALLERS, _TASKS),
        "Keep it, marked `deprecated`, until nobody sends it.",
    ),
    (
        "SIGNAL_NAME_CHANGED", _E, "The Temporal name of a signal changed, or now names another method.",
        (_CALLERS, _TASKS), "Keep the old `name`, or add another signal.",
    ),
    (
        "UPDATE_REMOVED", _E, "An update is no longer declared.", (_CALLERS, _TASKS),
        "Keep it, marked `deprecated`, until nobody sends it.",
    ),
    (
        "UPDATE_NAME_CHANGED", _E, "The Temporal name of an update changed, or now names another method.",
        (_CALLERS, _TASKS), "Keep the old `name`, or add another update.",
    ),
    (
        "WORKFLOW_QUERY_REMOVED", _E, "A workflow no longer answers a query that is still declared.", (_CALLERS,),
        "Put it back among the workflow's `query`.",
    ),
    (
        "WORKFLOW_SIGNAL_REMOVED", _E, "A workflow no longer takes a signal that is still declared.",
        (_CALLERS, _TASKS), "Put it back among the workflow's `signal`.",
    ),
    (
        "WORKFLOW_UPDATE_REMOVED", _E, "A workflow no longer takes an update that is still declared.",
        (_CALLERS, _TASKS), "Put it back among the workflow's `update`.",
    ),
    (
        "WITH_START_REMOVED", _W, "`start` of a workflow's signal or update was removed.", (_CALLERS,),
        "Keep `start: true`; regenerated clients lose the call.",
    ),
    (
        "TASK_QUEUE_CHANGED", _E, "`task_queue` of a workflow or activity, its own or its service's, changed.",
        (_CALLERS, _WORKERS, _TASKS, _SCHEDULES),
        "Keep the queue, or poll both until the old one is empty and add an exception.",
    ),
    (
        "WORKFLOW_ID_CHANGED", _E, "The expression of a workflow's `id` changed.", (_CALLERS, _TASKS, _SCHEDULES),
        "Keep it: with another id the same input starts another task, and running tasks are not found.",
    ),
    (
        "UPDATE_ID_CHANGED", _E, "The expression of an update's `id` changed.", (_CALLERS, _TASKS),
        "Keep it: a repeated update with another id runs again.",
    ),
    (
        "ID_REUSE_POLICY_CHANGED", _E, "`id_reuse_policy` changed.", (_CALLERS, _SCHEDULES),
        "Keep it, or declare another workflow with the new policy.",
    ),
    (
        "ID_CONFLICT_POLICY_CHANGED", _E, "`workflow_id_conflict_policy` of a workflow or an update changed.",
        (_CALLERS, _TASKS, _SCHEDULES), "Keep it, or declare another workflow with the new policy.",
    ),
    (
        "UPDATE_VALIDATE_REMOVED", _E, "`validate` of an update was removed.", (_CALLERS, _TASKS),
        "Keep the validator: callers rely on its rejections, and accepted updates go into the history.",
    ),
    (
        "UPDATE_WAIT_CHANGED", _W, "`wait_for_stage` of an update changed.", (_CALLERS,),
        "Keep it; callers who need another stage can give it with the update.",
    ),
    (
        "SEARCH_ATTRIBUTE_REMOVED", _E, "A search attribute of a workflow was removed or renamed.", (_CALLERS,),
        "Keep it, and add the new one.",
    ),
    (
        "SEARCH_ATTRIBUTE_TYPE_CHANGED", _E, "The type of a search attribute changed.", (_CALLERS, _WORKERS, _TASKS),
        "Add one with another name; the server allows one type per name.",
    ),
    (
        "SEARCH_ATTRIBUTE_VALUE_CHANGED", _W, "The value of a search attribute changed.", (_CALLERS,),
        "Keep it, or add one with another name.",
    ),
    (
        "VERSIONING_BEHAVIOR_CHANGED", _E, "`versioning_behavior` changed.", (_WORKERS, _TASKS),
        "Keep it, or declare another workflow; running ones would change versions in an unplanned way.",
    ),
    (
        "PARENT_CLOSE_POLICY_CHANGED", _E, "`parent_close_policy` changed.", (_TASKS,),
        "Keep it; a parent that needs another one can give it with the call.",
    ),
    (
        "WAIT_FOR_CANCELLATION_CHANGED", _E, "`wait_for_cancellation` changed.", (_TASKS,),
        "Keep it; a workflow that needs another one can give it with the call.",
    ),
    (
        "TIMEOUT_SHRUNK", _W, "A timeout was shortened or added.", (_CALLERS, _TASKS, _SCHEDULES),
        "Make sure that nothing takes longer, or keep the old one.",
    ),
    (
        "HEARTBEATS_CHANGED", _W, "The sender of an activity's heartbeats changed: the worker or the activity itself.",
        (_WORKERS, _TASKS),
        "Keep it. An activity that sends them must call `heartbeat()`; if the worker does, a hung one is not found.",
    ),
    (
        "HEARTBEAT_TIMEOUT_REMOVED", _W, "`heartbeat_timeout` of an activity was removed.", (_TASKS,),
        "Keep it: without it a worker's death is noticed only at the end of `start_to_close_timeout`.",
    ),
    (
        "RETRY_ATTEMPTS_REDUCED", _W, "The number of attempts was reduced.", (_CALLERS, _TASKS),
        "Keep `max_attempts`, or make sure that more attempts would not help.",
    ),
    (
        "RETRY_ERROR_ADDED", _W, "An error type became non-retryable.", (_CALLERS, _TASKS),
        "Make sure that a retry never helps with errors of this type.",
    ),
    (
        "TEMPORAL_OPTION_CHANGED", _W, "An option changed, and the gate does not know whom that breaks.",
        (_CALLERS, _WORKERS, _TASKS), "Check what reads the option, such as generators for other languages.",
    ),
)  # fmt: skip

_REJECT = (_CALLERS, _TASKS, _SCHEDULES)
_WIDER = "Accept what was accepted, or add a field or a method with its own input."

_VALIDATE = _rules(
    Family.RULES,
    (
        "INPUT_FIELD_REQUIRED", _E, "An input no longer accepts a missing or zero field.", _REJECT, _WIDER,
    ),
    (
        "INPUT_NEW_FIELD_REQUIRED", _E, "A new field of an input is required.", _REJECT,
        "Accept its absence: callers on the old contract do not know it.",
    ),
    (
        "INPUT_ONEOF_NARROWED", _E, "A oneof of an input became required, or fewer of its fields may be set together.",
        _REJECT, _WIDER,
    ),
    (
        "INPUT_RANGE_NARROWED", _E, "A number, duration or timestamp of an input has narrower bounds.", _REJECT, _WIDER,
    ),
    (
        "INPUT_VALUES_NARROWED", _E,
        "Fewer values of an input are accepted, by `const`, `in`, `not_in`, `defined_only` or the like.", _REJECT,
        _WIDER,
    ),
    (
        "INPUT_LENGTH_NARROWED", _E, "A string or bytes field of an input has narrower bounds of its length.",
        _REJECT, _WIDER,
    ),
    (
        "INPUT_FORMAT_NARROWED", _E, "A string or bytes field of an input must match a format, prefix or suffix.",
        _REJECT, _WIDER,
    ),
    (
        "INPUT_SIZE_NARROWED", _E,
        "A list or map of an input may have fewer elements, or needs more or unique ones.",
        _REJECT, _WIDER,
    ),
    (
        "INPUT_EXPRESSION_ADDED", _E, "A CEL expression, a pattern or a predefined rule was added to an input.",
        _REJECT, "Remove it, or add an exception with the reason why everything that is sent passes.",
    ),
    (
        "INPUT_EXPRESSION_CHANGED", _W,
        "An expression, a pattern or a predefined rule of an input changed; it may accept less.",
        _REJECT, "Make sure that it accepts whatever the old one accepted.",
    ),
    (
        "OUTPUT_WIDENED", _W, "An output may hold what it could not hold before.", (_CALLERS, _WORKERS, _TASKS),
        "Keep the rule, or make sure that all readers handle the new values.",
    ),
    (
        "OUTPUT_EXPRESSION_CHANGED", _W,
        "An expression, a pattern or a predefined rule of an output changed; it may accept more.",
        (_CALLERS, _WORKERS, _TASKS), "Make sure that it accepts nothing that the old one rejected.",
    ),
)  # fmt: skip

_OPTIONS = _rules(
    Family.OPTIONS,
    (
        "FIELD_BECAME_INTERNAL", _E, "A field became `internal`: callers who set it are rejected.", (_CALLERS,),
        "Leave it open to callers, and add an internal field.",
    ),
    (
        "METHOD_BECAME_INTERNAL", _E, "A workflow, query, signal or update became `internal_method`.",
        (_CALLERS, _SCHEDULES), "Leave it open to callers, and add an internal method.",
    ),
    (
        "OPTION_CHANGED", _W, "Another option changed, and this version does not know whom that breaks.",
        (_CALLERS, _WORKERS, _TASKS), "Check what the option does, or upgrade ContextWorker.",
    ),
    (
        "SCHEDULE_REMOVED", _E, "A `schedule` was removed, or has another `id`.", (_SCHEDULES,),
        "Keep its `id`: a schedule with a new id is created, and the old one continues.",
    ),
    (
        "SCHEDULE_WORKFLOW_CHANGED", _E, "A `schedule` moved to another workflow.", (_SCHEDULES,),
        "Leave it there, and declare one with another `id`.",
    ),
    (
        "SCHEDULE_OVERLAP_CHANGED", _E, "`overlap` of a `schedule` changed.", (_TASKS, _SCHEDULES),
        "Keep it, or declare a schedule with another `id`.",
    ),
    (
        "SCHEDULE_TIME_CHANGED", _W, "`cron`, `timezone` or `input_json` of a `schedule` changed.", (_SCHEDULES,),
        "Make sure that nobody relies on the old times or input.",
    ),
    (
        "SCHEDULE_CATCHUP_SHRUNK", _W, "`catchup_window` of a `schedule` became shorter.", (_SCHEDULES,),
        "Make sure that runs missed while the server is down may be skipped.",
    ),
)  # fmt: skip

_EXCEPTIONS = _rules(
    Family.EXCEPTIONS,
    (
        "EXCEPTION_UNUSED", _E, "An entry of contract-exceptions.toml excepts nothing.", (),
        "Delete the entry, or correct its `rule` and `path`.",
    ),
)  # fmt: skip

RULES: dict[str, Rule] = {**_TEMPORAL, **_VALIDATE, **_OPTIONS, **_EXCEPTIONS}
"""All rules except buf's own, by id."""
