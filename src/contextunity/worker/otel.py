"""Spans by OpenTelemetry's SDK: what exports them, which ids they have, and what they say of calls and errors.

Imported only if traces are on; see `tracing`.

One rule relates traces to the trace_id of units: they are the same 16 bytes. So a call without a `traceparent` begins
the trace whose id is its trace_id, and so does a run that Temporal's schedules start. If a caller sends both, its
`traceparent` decides. All spans have the trace_id as `contextunity.trace_id`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
import traceback
import uuid
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError, is_cancelled_exception

from contextunity.core.errors import ContextUnityError

from .errors import SettingsError

__all__ = ["TENANT_ID", "TRACE_ID", "CallSpan", "Spans", "end_with"]

TRACE_ID, TENANT_ID = "contextunity.trace_id", "contextunity.tenant_id"
"""Attributes of spans."""
_ABOUT = {"tenant_id": TENANT_ID, "workflow_id": "temporalWorkflowID", "run_id": "temporalRunID"}
"""Attributes for what a call is about."""
_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_LAST_EXPORT = 3000
"""Milliseconds that a stopping process waits for its last spans to be exported."""
_TEMPORAL = TraceContextTextMapPropagator()
"""In Temporal's headers, whatever callers send: those of other SDKs understand no other."""
_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Statuses that are errors of a server's span; others are the caller's own."""


class Spans:
    """Records spans.

    Args:
        processors: get every span when it ends.
    """

    header_name = "_tracer-data"
    """Temporal header with the current span, as OpenTelemetry's interceptors of all SDKs have it."""

    def __init__(self, *processors: SpanProcessor) -> None:
        resource = Resource.create()
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "contextworker"}))
        self._ids = _Ids()
        # The process closes it in time; at exit the SDK would wait for half a minute.
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        if "TraceIdRatio" in self._provider.sampler.get_description():
            self._provider.sampler = _EvenSampler(self._provider.sampler)
        for processor in processors:
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("contextunity.worker")
        # What else callers send in baggage goes nowhere.
        self._keys = propagate.get_global_textmap().fields - {"baggage"}

    @classmethod
    def exporting(cls, names: Sequence[str], environment: Mapping[str, str]) -> Spans:
        """Return what exports spans. Its provider is that of the whole process: modules may record spans of their own.

        Args:
            names: exporters, as OTEL_TRACES_EXPORTER names them.
            environment: OpenTelemetry's variables.

        Raises:
            SettingsError: there is no such exporter.
        """
        spans = cls(*(_Batches(_exporter(name, environment)) for name in names if name != "none"))
        trace.set_tracer_provider(spans._provider)
        return spans

    def close(self) -> None:
        """Export what waits, and stop."""
        self._provider.shutdown()

    # Parents.

    def parent_of_call(self, metadata: Any) -> SpanContext | None:
        """Return the caller's span from the metadata of a call; None if it sent none."""
        # Keys are in lower case, by gRPC as by HTTP/2.
        carrier = {key: value for key, value in metadata or () if key in self._keys and isinstance(value, str)}
        if not carrier:
            return None
        return _valid(trace.get_current_span(propagate.extract(carrier, Context())).get_span_context())

    def parent_of_work(self, headers: Mapping[str, Payload]) -> SpanContext | None:
        """Return the span that started a workflow or an activity, from its headers; None if there is none."""
        payload = headers.get(self.header_name)
        if payload is None:
            return None
        try:
            carrier: Any = PayloadConverter.default.from_payload(payload)
        except Exception:  # noqa: BLE001 - whatever another program wrote there, the work does not need it
            return None
        return self.parent_of_text(cast("dict[str, str]", carrier)) if isinstance(carrier, dict) else None

    def parent_of_text(self, carrier: Mapping[str, str]) -> SpanContext | None:
        """Return the span in headers that are text, such as those of Nexus; None if there is none."""
        return _valid(trace.get_current_span(_TEMPORAL.extract(carrier, Context())).get_span_context())

    def headers(self) -> dict[str, Payload]:
        """Return Temporal's headers for what the current span starts; empty without one."""
        carrier = self.text_headers()
        if not carrier:
            return {}
        # As the SDK's converter writes it, in a fifth of the time.
        return {self.header_name: Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(carrier).encode())}

    def write_header(self, fields: Any) -> None:
        """Write the same into the headers of a request to Temporal."""
        for name, payload in self.headers().items():
            fields[name].CopyFrom(payload)

    def text_headers(self) -> dict[str, str]:
        """Return the same as text."""
        carrier = dict[str, str]()
        _TEMPORAL.inject(carrier)
        return carrier

    # Spans.

    def start(
        self,
        name: str,
        parent: SpanContext | None,
        trace_id: str,
        *,
        kind: SpanKind = SpanKind.SERVER,
        span_id: int = 0,
        start_time: int | None = None,
        attributes: Mapping[str, str | int] | None = None,
    ) -> Span:
        """Start a span.

        Args:
            name: what is done.
            parent: the span that caused it; None to begin the trace of the trace_id.
            trace_id: of the unit; empty if it is not known.
            kind: its kind.
            span_id: its id; 0 for a random one.
            start_time: nanoseconds since 1970; default: now.
            attributes: more attributes.
        """
        given = {**(attributes or {}), **({TRACE_ID: trace_id} if trace_id else {})}
        self._ids.wanted(_otel_trace_id(trace_id) if trace_id else 0, span_id)
        try:
            return self._tracer.start_span(
                name, _context_of(parent), kind=kind, attributes=given, start_time=start_time, record_exception=False
            )
        finally:
            self._ids.wanted(0, 0)

    def identity(self, name: str, parent: SpanContext | None, trace_id: str, span_id: int) -> SpanContext:
        """Return what `start` will identify a span by, without starting it: whether it is sampled is known before."""
        number = parent.trace_id if parent is not None else _otel_trace_id(trace_id)
        result = self._provider.sampler.should_sample(_context_of(parent), number, name, SpanKind.SERVER)
        is_sampled = result.decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT
        return SpanContext(
            number, span_id, is_remote=False, trace_flags=TraceFlags(flags), trace_state=result.trace_state
        )

    def call(self, path: str, system: str, metadata: Any) -> CallSpan:
        """Return the span of a call; see `CallSpan`."""
        return CallSpan(self, path, system, metadata)

    @contextlib.contextmanager
    def part(self, name: str, attributes: Mapping[str, str | int]) -> Generator[None, None, None]:
        """Record a span of the current one around a block; nothing if there is none. See `tracing.span`."""
        if not trace.get_current_span().get_span_context().is_valid:
            yield
            return
        given = {key.replace("_", "."): value for key, value in attributes.items()}
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=given, record_exception=False)
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            yield
        except BaseException as error:
            end_with(span, error)
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def record(self, error: Exception) -> None:
        """Record an unexpected error in the current span."""
        _record(trace.get_current_span(), error)

    def attach(self, span: Span | SpanContext) -> None:
        """Make a span the current one for the rest of the calling asyncio task."""
        found = trace.NonRecordingSpan(span) if isinstance(span, SpanContext) else span
        otel_context.attach(trace.set_span_in_context(found, Context()))

    def current_ids(self) -> tuple[str, str] | None:
        """Return the ids of the current trace and span, as OpenTelemetry writes them; None without a span."""
        found = trace.get_current_span().get_span_context()
        return (f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else None


class CallSpan:
    """The span of a call of the service. It starts when the call's trace_id is known, with the time of its headers.

    Args:
        spans: records it.
        path: the full name of the method, such as `/acme.billing.v1.Billing/Charge`.
        system: grpc or connectrpc.
        metadata: of the call.
    """

    def __init__(self, spans: Spans, path: str, system: str, metadata: Any) -> None:
        self._spans, self._name, self._system = spans, path.removeprefix("/"), system
        self._began = time.time_ns()
        self.parent = spans.parent_of_call(metadata)
        """The caller's span; None if it sent none."""
        self._span: Span | None = None
        self._about: Mapping[str, Any] = {}

    def begin(self, trace_id: str, fallback: str, about: Mapping[str, Any]) -> str:
        """Start the span, and make it the current one for the rest of the asyncio task.

        Args:
            trace_id: that the caller gave the unit; empty if it gave none.
            fallback: the trace_id if the caller sent no span either.
            about: the tenant and the task that the call is about; read when it ends.

        Returns:
            The trace_id of the call.
        """
        if not trace_id:
            trace_id = fallback if self.parent is None else str(uuid.UUID(int=self.parent.trace_id))
        self._about = about
        self._span = self._start(trace_id)
        self._spans.attach(self._span)
        return trace_id

    def end(self, code: str) -> None:
        """End the span with the status of the call, by its name in gRPC."""
        span = self._span or self._start("")
        attributes = {_ABOUT[name]: value for name, value in self._about.items() if name in _ABOUT and value}
        if self._system == "grpc":
            attributes["rpc.response.status_code"] = code
        elif code != "OK":
            # Connect writes its codes like this.
            attributes["rpc.response.status_code"] = code.lower().replace("cancelled", "canceled")
        if code != "OK":
            attributes["error.type"] = code
        span.set_attributes(attributes)
        if code in _SERVER_ERRORS:
            span.set_status(StatusCode.ERROR)
        span.end()

    def _start(self, trace_id: str) -> Span:
        attributes = {"rpc.system.name": self._system, "rpc.method": self._name}
        return self._spans.start(self._name, self.parent, trace_id, start_time=self._began, attributes=attributes)


def end_with(span: Span, error: BaseException) -> None:
    """Write into a span that it ended with an error: its type, and whether it was expected. Never its text.

    A cancellation is no error, and neither is what only waits, such as for its turn.
    """
    if is_cancelled_exception(error):
        span.set_attribute("error.type", "cancelled")
        return
    if isinstance(error, ApplicationError):
        span.set_attribute("error.type", error.type or type(error).__name__)
        if error.category is not ApplicationErrorCategory.BENIGN:
            span.set_status(StatusCode.ERROR)
        return
    span.set_attribute("error.type", type(error).__name__)
    if isinstance(error, Exception):
        span.set_status(StatusCode.ERROR)
        if not isinstance(error, FailureError | ContextUnityError):
            _record(span, error)


def _record(span: Span, error: Exception) -> None:
    """Record an unexpected error: its type, and the calls that led to it.

    Neither its text nor lines of source: the first may quote payloads and secrets, and the second constants.
    """
    calls = (f"{each.filename}:{each.lineno} in {each.name}" for each in traceback.extract_tb(error.__traceback__))
    span.add_event("exception", {"exception.type": type(error).__name__, "exception.stacktrace": "\n".join(calls)})


def _valid(found: SpanContext) -> SpanContext | None:
    return found if found.is_valid else None


def _context_of(parent: SpanContext | None) -> Context:
    return Context() if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


def _otel_trace_id(trace_id: str) -> int:
    """Return the id of the trace of a unit: the 16 bytes of its UUID, or of the SHA-256 of another text."""
    try:
        number = uuid.UUID(trace_id).int
    except ValueError:
        number = 0
    return number or int.from_bytes(hashlib.sha256(trace_id.encode()).digest()[:16])


class _Ids(RandomIdGenerator):
    """Random ids, unless others are wanted for the next span that this thread starts."""

    def __init__(self) -> None:
        self._local = threading.local()

    def wanted(self, trace_id: int, span_id: int) -> None:
        self._local.ids = (trace_id, span_id)

    def generate_trace_id(self) -> int:
        return getattr(self._local, "ids", (0, 0))[0] or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return getattr(self._local, "ids", (0, 0))[1] or super().generate_span_id()


class _EvenSampler(Sampler):
    """Samples by ratio although trace ids are UUIDs.

    Samplers compare the lower half of an id with their ratio. That of a UUID always begins with the same two bits, so
    a ratio of 0.4 would take none and one of 0.8 all of them.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self, parent_context: Context | None, trace_id: int, *arguments: Any, **named: Any
    ) -> SamplingResult:
        # Version 4, and its variant.
        if trace_id >> 76 & 0xF == 4 and trace_id >> 62 & 0b11 == 0b10:
            digest = hashlib.blake2b(trace_id.to_bytes(16), digest_size=16).digest()
            trace_id = int.from_bytes(digest)
        return self._sampler.should_sample(parent_context, trace_id, *arguments, **named)

    def get_description(self) -> str:
        return self._sampler.get_description()


class _Batches(BatchSpanProcessor):
    def shutdown(self) -> None:
        self._batch_processor.shutdown(timeout_millis=_LAST_EXPORT)


def _exporter(name: str, environment: Mapping[str, str]) -> SpanExporter:
    """Return an exporter by its name in OTEL_TRACES_EXPORTER.

    Raises:
        SettingsError: it is not installed, or does not accept a variable of its own.
    """
    wanted = name
    if name == "otlp":
        protocol = (
            environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get(_PROTOCOL) or "http/protobuf"
        )
        if protocol not in _PROTOCOLS:
            raise SettingsError([f"{_PROTOCOL} = {protocol!r}: give {' or '.join(_PROTOCOLS)}"])
        wanted = _PROTOCOLS[protocol]
    found = {each.name: each for each in entry_points(group="opentelemetry_traces_exporter")}
    if wanted not in found:
        known = ", ".join(sorted({"otlp", "none", *found}))
        raise SettingsError([f"OTEL_TRACES_EXPORTER = {name!r} is not installed; there are: {known}"])
    try:
        exporter: SpanExporter = found[wanted].load()()
    except ImportError as error:
        raise SettingsError(
            [f"OTEL_TRACES_EXPORTER = {name!r}: {error.name} is not installed; run pip install 'contextworker[otel]'"]
        ) from None
    except ValueError as error:
        raise SettingsError([f"OTEL_TRACES_EXPORTER = {name!r}: {error}"]) from None
    return exporter
