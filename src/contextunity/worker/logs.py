"""The log of a process: every record has the trace and tenant of its work, and all of its output one shape.

What comes without Python's logging is led there: lines of the SDK's Rust core, warnings, and, for JSON, errors that
nothing caught.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, cast

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from contextunity.core import context

from . import tracing
from .settings import Settings

__all__ = [
    "ContextFilter",
    "JsonFormatter",
    "TextFormatter",
    "begin",
    "configure",
    "core_log",
    "current_call",
    "forward_core_log",
    "writes_json",
]

_CONTEXT_FIELDS = ("trace_id", "tenant_id")
_WORK_FIELDS = ("workflow_id", "run_id", "workflow_type", "activity_type", "attempt")
_TALKATIVE = ("boto3", "botocore", "httpcore", "httpx", "s3transfer", "urllib3")
"""Libraries that log URLs and headers, which may contain secrets, below warnings; `egress` logs requests without."""
_SPAN_FIELDS = ("otel_trace_id", "otel_span_id")
_TEXT_FIELDS = (*_CONTEXT_FIELDS, "workflow_id", "activity_type")
_CORE_LEVELS = {"debug": "INFO", "info": "WARN", "warning": "WARN", "error": "ERROR"}
"""Levels of the SDK's Rust core. It filters before it hands a line over, so that the others cost nothing; one level
lower it writes several lines for each task."""
_LOG = logging.getLogger("contextunity.worker")


class _Call(Protocol):
    trace_id: str
    about: dict[str, Any]


current_call: ContextVar[_Call | None] = ContextVar("contextunity_call", default=None)
"""The call that the service is answering, for the records that it causes."""


def begin(environment: Mapping[str, str]) -> None:
    """Write JSON from the beginning if the environment says so: settings are read later, and may be invalid.

    Args:
        environment: variables of the process.
    """
    if environment.get("CONTEXTWORKER_LOG_FORMAT", "").strip().lower() == "json":
        _write(JsonFormatter(), "INFO")


def configure(settings: Settings) -> None:
    """Write the log of the process to standard error, and replace the earlier configuration.

    Args:
        settings: `log_level` is the lowest level written, `log_format` is text or json.
    """
    debugging = settings.log_level == "debug"
    if settings.log_format == "json":
        _write(JsonFormatter(build_id=settings.build_id, debugging=debugging), settings.log_level.upper())
    else:
        _write(TextFormatter(debugging=debugging), settings.log_level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Otherwise the SDK would append to each message, as a dict, what our formatters show.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False


def _write(formatter: logging.Formatter, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(ContextFilter())
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    if isinstance(formatter, JsonFormatter):
        # What Python would print itself, over several lines.
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
        sys.unraisablehook = _log_unraisable


def writes_json() -> bool:
    """Return whether the log of this process is JSON; then its other output is to go there too."""
    return any(isinstance(each.formatter, JsonFormatter) for each in logging.getLogger().handlers)


def core_log(settings: Settings) -> LoggingConfig:
    """Return the configuration by which lines of the SDK's Rust core go to Python's logging."""
    level = _CORE_LEVELS[settings.log_level]
    return LoggingConfig(
        filter=TelemetryFilter(core_level=level, other_level="ERROR"),
        forwarding=LogForwardingConfig(logging.getLogger("temporalio"), prepend_target_on_message=False),
    )


def forward_core_log(settings: Settings) -> None:
    """Have the SDK's default runtime log by `core_log`. Call it before anything connects to Temporal."""
    try:
        Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=core_log(settings))))
    except RuntimeError:
        _LOG.warning(
            "a module made the default Runtime of Temporal's SDK when it was imported, so the lines of its Rust core "
            "are not in this log; give that Runtime a LoggingConfig with forwarding, or make it later"
        )


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None, thread: str = ""
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    _LOG.critical("uncaught %s%s", kind.__name__, thread, exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    # A thread ends in silence by SystemExit.
    if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
        name = f" in the thread {arguments.thread.name}" if arguments.thread is not None else ""
        _log_uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback, name)


def _log_unraisable(raised: Any) -> None:
    message = raised.err_msg or "exception ignored in"
    error = raised.exc_value or raised.exc_type()
    _LOG.error("%s %r", message, raised.object, exc_info=(raised.exc_type, error, raised.exc_traceback))


class ContextFilter(logging.Filter):
    """Adds `trace_id` and `tenant_id` of the current context to each record, and what the SDK knows of the work.

    The latter are `workflow_id`, `run_id`, `workflow_type`, `activity_type` and `attempt`; and if traces are on,
    `otel_trace_id` and `otel_span_id`. Unknown values are not set, and existing attributes stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Accept every record."""
        fields = vars(record)
        now, call = context.current(), current_call.get()
        for name, value in (("trace_id", now.trace_id), ("tenant_id", now.tenant_id), *_work(fields)):
            if value:
                fields.setdefault(name, value)
        if call is not None:
            fields.setdefault("trace_id", call.trace_id)
            for name in ("tenant_id", "workflow_id", "run_id"):
                if value := call.about.get(name):
                    fields.setdefault(name, value)
        if tracing.active is not None and (ids := tracing.active.current_ids()) is not None:
            fields.update(zip(_SPAN_FIELDS, ids, strict=True))
        return True


class TextFormatter(logging.Formatter):
    """Formats records as lines for people. What was expected of an activity takes one line; see `_expected`.

    Args:
        debugging: whether to print its traceback too.
    """

    def __init__(self, *, debugging: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._debugging = debugging

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, or several with a traceback."""
        message = None if self._debugging else _expected(record)
        if message is not None:
            record = copy.copy(record)
            record.msg, record.args = message, ()
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Format the line without a traceback."""
        line = super().formatMessage(record)
        shown = [f"{name}={value}" for name in _TEXT_FIELDS if (value := getattr(record, name, None))]
        return f"{line} [{' '.join(shown)}]" if shown else line


class JsonFormatter(logging.Formatter):
    """Formats records as one JSON object per line, for programs.

    Each has `time` (ISO 8601, UTC), `level`, `logger` and `message`; and, if known, `trace_id`, `tenant_id`,
    `workflow_id`, `run_id`, `workflow_type`, `activity_type`, `attempt`, `otel_trace_id`, `otel_span_id`, `build_id`,
    `error_type`, `exception` and `stack`.

    Args:
        build_id: of the worker's code; empty if it has none.
        debugging: whether an expected failure has its traceback too.
    """

    def __init__(self, *, build_id: str = "", debugging: bool = False) -> None:
        super().__init__()
        self._build_id, self._debugging = build_id, debugging

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        expected = None if self._debugging else _expected(record)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().rstrip("\n") if expected is None else expected,
        }
        for name in (*_CONTEXT_FIELDS, *_WORK_FIELDS, *_SPAN_FIELDS):
            value = getattr(record, name, None)
            if value:
                line[name] = value
        if self._build_id:
            line["build_id"] = self._build_id
        if record.exc_info and (error := record.exc_info[1]) is not None:
            line["error_type"] = (isinstance(error, ApplicationError) and error.type) or type(error).__name__
            if expected is None:
                line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _work(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what the SDK's loggers add to a record about the workflow or activity."""
    known: dict[str, Any] = {}
    for extra in ("temporal_workflow", "temporal_activity"):
        found = fields.get(extra)
        if isinstance(found, Mapping):
            known |= cast("Mapping[str, Any]", found)
    if (entry := fields.get("temporal_log")) is not None:
        # The SDK's core names them alike.
        known |= entry.fields
    known.setdefault("run_id", known.get("workflow_run_id"))
    return [(name, known.get(name)) for name in _WORK_FIELDS]


def _expected(record: logging.LogRecord) -> str | None:
    """Return the whole message about an activity whose code ended it itself, or that was cancelled.

    None for all else: an exception that nobody raised on purpose needs its traceback.
    """
    # The SDK's own name for such records, so that other handlers recognize them.
    if vars(record).get("__temporal_error_identifier") != "ActivityFailure" or not record.exc_info:
        return None
    error = record.exc_info[1]
    if isinstance(error, asyncio.CancelledError | CancelledError):
        return "activity was cancelled"
    return f"activity failed: {_with_cause(error)}" if isinstance(error, ApplicationError) else None


def _with_cause(error: ApplicationError) -> str:
    told = str(error) if error.__cause__ is None else f"{error} ({error.__cause__})"
    return " ".join(told.splitlines())
