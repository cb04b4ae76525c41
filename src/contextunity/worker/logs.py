"""Configure the log of a process: every record has the trace and tenant of its work."""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from contextunity.core import context

from .settings import Settings

__all__ = ["ContextFilter", "JsonFormatter", "TextFormatter", "configure"]

_CONTEXT_FIELDS = ("trace_id", "tenant_id")
_WORK_FIELDS = ("workflow_id", "run_id", "workflow_type", "activity_type", "attempt")
_TALKATIVE = ("boto3", "botocore", "httpcore", "httpx", "s3transfer", "urllib3")
"""Libraries that log URLs and headers, which may contain secrets, below warnings; `egress` logs requests without."""
_TEXT_FIELDS = (*_CONTEXT_FIELDS, "workflow_id", "activity_type")


def configure(settings: Settings) -> None:
    """Write the log of the process to standard error, and replace the earlier configuration.

    Args:
        settings: `log_level` is the lowest level written, `log_format` is text or json.
    """
    debugging = settings.log_level == "debug"
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(ContextFilter())
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter(debugging=debugging))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Otherwise the SDK would append to each message, as a dict, what our formatters show.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False


class ContextFilter(logging.Filter):
    """Adds `trace_id` and `tenant_id` of the current context to each record, and what the SDK knows of the work.

    The latter are `workflow_id`, `run_id`, `workflow_type`, `activity_type` and `attempt`. Unknown values are not set,
    and existing attributes stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Accept every record."""
        fields = vars(record)
        now = context.current()
        for name, value in (("trace_id", now.trace_id), ("tenant_id", now.tenant_id), *_work(fields)):
            if value:
                fields.setdefault(name, value)
        return True


class TextFormatter(logging.Formatter):
    """Formats records as lines for people. An activity's expected failure, an ApplicationError, takes one line.

    Args:
        debugging: whether to print its traceback too.
    """

    def __init__(self, *, debugging: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._debugging = debugging

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, or several with a traceback."""
        failure = None if self._debugging else _foreseen_failure(record)
        if failure is not None:
            record = copy.copy(record)
            record.msg, record.args = "activity failed: %s", (_with_cause(failure),)
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
    `workflow_id`, `run_id`, `workflow_type`, `activity_type`, `attempt`, `exception` and `stack`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in (*_CONTEXT_FIELDS, *_WORK_FIELDS):
            value = getattr(record, name, None)
            if value:
                line[name] = value
        if record.exc_info:
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
    known.setdefault("run_id", known.get("workflow_run_id"))
    return [(name, known.get(name)) for name in _WORK_FIELDS]


def _foreseen_failure(record: logging.LogRecord) -> ApplicationError | None:
    # The SDK's own name for such records, so that other handlers recognize them.
    if vars(record).get("__temporal_error_identifier") != "ActivityFailure" or not record.exc_info:
        return None
    error = record.exc_info[1]
    return error if isinstance(error, ApplicationError) else None


def _with_cause(error: ApplicationError) -> str:
    return str(error) if error.__cause__ is None else f"{error} ({error.__cause__})"
