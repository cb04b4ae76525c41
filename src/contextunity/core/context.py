"""The context of the current work: its trace, tenant, provenance and caller.

Temporal's headers carry it to every workflow and activity, and every log record has it.
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
"""Maximum number of labels in a provenance. Without a limit, two workflows that signal each other forever would
collect more and more of them."""

_CURRENT: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar(HEADER, default=None)
_fallback: Callable[[], TaskContext | None] | None = None


def current() -> TaskContext:
    """Return the current context, or an empty one. It is shared: do not change it.

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
    """Make a context the current one inside the `with` block; tasks started there by a client carry it.

    Args:
        context: such as `extended` returns; None for no context.
    """
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def adopt(context: TaskContext) -> None:
    """Make a context the current one for the rest of the calling asyncio task."""
    _CURRENT.set(context)


def fall_back_on(find: Callable[[], TaskContext | None]) -> None:
    """Set the function that `current` calls if no context was set.

    The worker uses it for workflow code that runs outside of tasks: constructors and wait conditions.
    """
    global _fallback
    _fallback = find


def with_step(provenance: Sequence[str], label: str) -> list[str]:
    """Return a provenance with one more step.

    A label equal to the last one is not repeated, so a loop leaves one label. A provenance of MAX_PROVENANCE labels
    stays as it is.
    """
    steps = [*provenance]
    if steps[-1:] != [label] and len(steps) < MAX_PROVENANCE:
        steps.append(label)
    return steps


def extended(context: TaskContext, label: str) -> TaskContext:
    """Return a copy with one more step in its provenance.

    Args:
        context: is not changed.
        label: `service:action`; added by `with_step`.
    """
    return TaskContext(
        trace_id=context.trace_id,
        unit_id=context.unit_id,
        tenant_id=context.tenant_id,
        provenance=with_step(context.provenance, label),
        principal=context.principal,
    )
