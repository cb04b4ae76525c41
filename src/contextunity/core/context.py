"""The context of the work at hand: its trace, its tenant, the way it came, who asked.

It travels with the work, through Temporal's headers, and is there in every workflow, activity and log record.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Generator, Sequence

from contextunity.gen.contextunity.worker import TaskContext

__all__ = [
    "HEADER",
    "MAX_PROVENANCE",
    "TaskContext",
    "adopt",
    "current",
    "extended",
    "fall_back_on",
    "using",
    "with_step",
]

HEADER = "contextunity-context"
"""Temporal header that holds the context, as the `binary/protobuf` payload of a TaskContext."""

MAX_PROVENANCE = 256
"""Labels that a provenance holds at most. Work that goes back and forth for ever, such as two workflows that signal
each other, would otherwise carry more and more of them."""

_CURRENT: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar(HEADER, default=None)
_fallback: Callable[[], TaskContext | None] | None = None


def current() -> TaskContext:
    """The context of the work at hand; one with nothing set where there is none. It is shared, so do not change it.

    Example:
        >>> with using(TaskContext(trace_id="t", tenant_id="my_project")):
        ...     current().tenant_id
        'my_project'
        >>> current().tenant_id
        ''
    """
    found = _CURRENT.get()
    if found is None and _fallback is not None:
        found = _fallback()
    return TaskContext() if found is None else found


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


def adopt(context: TaskContext) -> None:
    """Makes a context the current one for the rest of the asyncio task that calls."""
    _CURRENT.set(context)


def fall_back_on(find: Callable[[], TaskContext | None]) -> None:
    """Has `current` ask a function where nobody made a context the current one.

    The worker knows by it the context of workflow code that runs outside of tasks: constructors and wait conditions.
    """
    global _fallback
    _fallback = find


def with_step(provenance: Sequence[str], label: str) -> list[str]:
    """A provenance with one more step.

    The label that is there last already is not repeated, so that work which goes round in place leaves one; nor is a
    label added to MAX_PROVENANCE of them.
    """
    steps = [*provenance]
    if steps[-1:] != [label] and len(steps) < MAX_PROVENANCE:
        steps.append(label)
    return steps


def extended(context: TaskContext, label: str) -> TaskContext:
    """A copy with one more step in its provenance.

    Args:
        context: stays as it is.
        label: a `service:action`, which `with_step` adds.
    """
    return TaskContext(
        trace_id=context.trace_id,
        unit_id=context.unit_id,
        tenant_id=context.tenant_id,
        provenance=with_step(context.provenance, label),
        principal=context.principal,
    )
