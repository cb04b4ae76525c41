"""The context of the work at hand: its trace, its tenant, the way it came, who asked.

It travels with the work, through Temporal's headers, and is there in every workflow, activity and log record.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Generator

from contextunity.gen.contextunity.worker import TaskContext

__all__ = ["HEADER", "TaskContext", "current", "extended", "using"]

HEADER = "contextunity-context"
"""Temporal header that holds the context, as the `binary/protobuf` payload of a TaskContext."""

_CURRENT: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar(HEADER, default=None)


def current() -> TaskContext:
    """The context of the work at hand; one with nothing set where there is none. It is shared, so do not change it.

    Example:
        >>> with using(TaskContext(trace_id="t", tenant_id="my_project")):
        ...     current().tenant_id
        'my_project'
        >>> current().tenant_id
        ''
    """
    return _CURRENT.get() or TaskContext()


@contextlib.contextmanager
def using(context: TaskContext | None) -> Generator[None]:
    """Makes a context the current one; what is started by a client within it carries it along.

    Args:
        context: as from `extended`; None for no context at all.
    """
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def extended(context: TaskContext, label: str) -> TaskContext:
    """A copy with one more step in its provenance.

    Args:
        context: stays as it is.
        label: a `service:action`. The label that is there last already is not repeated, so that work which goes round
            in place, such as a workflow that continues as new, does not grow its provenance without bound.
    """
    provenance = context.provenance if context.provenance[-1:] == [label] else [*context.provenance, label]
    return TaskContext(
        trace_id=context.trace_id,
        unit_id=context.unit_id,
        tenant_id=context.tenant_id,
        provenance=list(provenance),
        principal=context.principal,
    )
