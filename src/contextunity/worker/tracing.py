"""Traces: whether this process records spans, and the spans of modules.

Nothing of OpenTelemetry is imported here, and nothing is recorded, unless OTEL_TRACES_EXPORTER names an exporter;
`otel` does the rest then. docs/how-to/traces.md lists all spans.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .errors import SettingsError

if TYPE_CHECKING:
    from .otel import Spans

__all__ = ["active", "span", "start_tracing", "stop_tracing", "traceparent"]

active: Spans | None = None
"""What records spans; None where traces are off."""

_EXPORTER, _DISABLED = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"
_NOTHING: AbstractContextManager[Any] = contextlib.nullcontext()


def start_tracing(environment: Mapping[str, str]) -> bool:
    """Record spans from now on, if the environment asks for it. Call it before anything connects to Temporal.

    Args:
        environment: OpenTelemetry's variables. The SDK reads those of exporters, samplers and resources by itself.

    Returns:
        Whether spans are recorded.

    Raises:
        SettingsError: OpenTelemetry is not installed, or a variable has a value that it does not know.
    """
    global active
    names = [name for each in environment.get(_EXPORTER, "").split(",") if (name := each.strip())]
    if names in ([], ["none"]) or environment.get(_DISABLED, "").strip().lower() == "true":
        return False
    try:
        from .otel import Spans
    except ImportError as error:
        raise SettingsError(
            [
                f"{_EXPORTER} = {environment[_EXPORTER]!r}: {error.name or 'opentelemetry'} is not installed; "
                f"run pip install 'contextworker[otel]', or unset {_EXPORTER}"
            ]
        ) from None
    active = Spans.exporting(names, environment)
    return True


def stop_tracing() -> None:
    """Export the spans that wait, for a few seconds at most, and record no more."""
    global active
    if active is not None:
        active.close()
        active = None


def span(name: str, **attributes: str | int) -> AbstractContextManager[Any]:
    """Record a span around a block, as a part of the current one; nothing if there is none, or traces are off.

    Args:
        name: what is done; few different ones, without ids.
        attributes: no payloads and no secrets; `db_system_name` becomes `db.system.name` by its underscores.
    """
    return _NOTHING if active is None else active.part(name, attributes)


def traceparent() -> tuple[tuple[str, str], ...]:
    """Return the metadata with which a call belongs to the caller's trace; empty without a current span.

    A program that has never imported OpenTelemetry has no span, so it is not imported for that.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return ()
    from opentelemetry import propagate

    carrier = dict[str, str]()
    propagate.inject(carrier)
    # grpcio takes only names in lower case.
    return tuple((name.lower(), value) for name, value in carrier.items())
