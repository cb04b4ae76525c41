"""The metrics of a process: the table of ours, and the endpoint `/metrics` with ours and those of Temporal's SDK.

Both go through the SDK's runtime, whose exporter serves the endpoint. Without `metrics_port` there is no endpoint, and
recording does nothing. A program that embeds us and has a default Runtime with its own exporter gets our metrics there.

docs/reference/metrics.md is generated from the table; a metric that is not in it cannot be recorded.
"""

from __future__ import annotations

import enum
import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from temporalio.common import MetricMeter
from temporalio.runtime import LoggingConfig, PrometheusConfig, Runtime, TelemetryConfig

from .errors import PortTakenError, SettingsError
from .settings import Settings

__all__ = ["METRICS", "CallMeter", "Kind", "Metric", "call_meter", "serve_metrics", "tenant_class"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BYTES = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)
_OTHER = "other"
"""Class of tenants that `metric_tenants` does not name."""
_FREE_PORT_ATTEMPTS = 5
_SETTING = "CONTEXTWORKER_METRICS_PORT (or the host with CONTEXTWORKER_METRICS_HOST)"


class Kind(enum.Enum):
    """Type of a metric in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One of our metrics.

    Attributes:
        name: its name in Prometheus, including the unit.
        kind: its type in Prometheus.
        help: what it counts.
        labels: names of its labels. Their values come from code, contracts and settings, never from callers, so that
            there are few.
        by_tenant: whether it also has the label `tenant` if `metric_tenants` is set.
        buckets: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    by_tenant: bool = False
    buckets: tuple[float, ...] = ()

    def add(self, amount: int = 1, *, tenant: str = "", **labels: str) -> None:
        """Add to a counter."""
        self._record("add", amount, tenant, labels)

    def set(self, value: int, **labels: str) -> None:
        """Set a gauge."""
        self._record("set", value, "", labels)

    def observe(self, value: float, *, tenant: str = "", **labels: str) -> None:
        """Record a value in a histogram."""
        self._record("record", value, tenant, labels)

    def _record(self, how: str, value: float, tenant: str, labels: Mapping[str, str]) -> None:
        recorder = _recorder()
        if recorder is not None:
            getattr(recorder.instrument(self, labels, tenant), how)(value)


RPC_TOTAL = Metric(
    name="contextworker_rpc_total",
    kind=Kind.COUNTER,
    help="Calls that ended, over gRPC and HTTP, of WorkerService and of contracts' services, by status.",
    labels=("method", "code"),
    by_tenant=True,
)
RPC_SECONDS = Metric(
    name="contextworker_rpc_seconds",
    kind=Kind.HISTOGRAM,
    help="Seconds from the headers of a call to its end. A watch lasts as long as its caller watches.",
    labels=("method",),
    by_tenant=True,
    buckets=_SECONDS,
)
RPC_IN_FLIGHT = Metric(
    name="contextworker_rpc_in_flight", kind=Kind.GAUGE, help="Calls under way, watches included.", labels=("method",)
)
RPC_REQUEST_BYTES = Metric(
    name="contextworker_rpc_request_bytes",
    kind=Kind.HISTOGRAM,
    help="Bytes of the message of a call, as Protocol Buffers; 0 of a call that was refused by its headers.",
    labels=("method",),
    by_tenant=True,
    buckets=_BYTES,
)
RPC_RESPONSE_BYTES = Metric(
    name="contextworker_rpc_response_bytes",
    kind=Kind.HISTOGRAM,
    help="Bytes of the answers to a call, as Protocol Buffers; 0 of a call that failed.",
    labels=("method",),
    by_tenant=True,
    buckets=_BYTES,
)
QUOTA_REFUSALS_TOTAL = Metric(
    name="contextworker_quota_refusals_total",
    kind=Kind.COUNTER,
    help="Calls, harvests and fetches over a quota. `method` is that of the call, or the type of the activity.",
    labels=("quota", "method"),
    by_tenant=True,
)
WORKFLOWS_TOTAL = Metric(
    name="contextworker_workflows_total",
    kind=Kind.COUNTER,
    help=(
        "Runs of workflows that ended in this worker: completed, failed, cancelled or continued_as_new. Timeouts and "
        "terminations end at the Temporal server, and no worker sees them."
    ),
    labels=("workflow_type", "status"),
    by_tenant=True,
)
START_SECONDS = Metric(
    name="contextworker_start_to_first_task_seconds",
    kind=Kind.HISTOGRAM,
    help=(
        "Seconds from the start of a task to the beginning of its first workflow task in this worker, both by the "
        "clock of the Temporal server: how long it takes until what was started is worked on. Once for each task "
        "that a caller or a schedule started; children and continued runs are not counted."
    ),
    labels=("workflow_type",),
    by_tenant=True,
    buckets=_SECONDS,
)
ACTIVITY_FAILURES_TOTAL = Metric(
    name="contextworker_activity_failures_total",
    kind=Kind.COUNTER,
    help=(
        "Attempts of activities that failed, by type of the error; each is retried as its retry policy says. `benign` "
        "is true of those that only wait, such as for their turn."
    ),
    labels=("activity_type", "error_type", "benign"),
    by_tenant=True,
)
ACTIVITY_RETRIES_TOTAL = Metric(
    name="contextworker_activity_retries_total",
    kind=Kind.COUNTER,
    help="Attempts of activities that began after a first one.",
    labels=("activity_type",),
    by_tenant=True,
)
FETCHED_BYTES_TOTAL = Metric(
    name="contextworker_fetched_bytes_total",
    kind=Kind.COUNTER,
    help=(
        "Bytes of feeds and for tools of programs that came over the network, compressed as they came, by type of the "
        "activity: `fetch_products` reads feeds."
    ),
    labels=("activity_type",),
    by_tenant=True,
)
FEED_ROWS_TOTAL = Metric(
    name="contextworker_feed_rows_total",
    kind=Kind.COUNTER,
    help="Rows of feeds that were read, those of repeated pages included.",
    labels=("supplier",),
    by_tenant=True,
)
FEED_REJECTS_TOTAL = Metric(
    name="contextworker_feed_rejects_total",
    kind=Kind.COUNTER,
    help="Rows of feeds that were rejected, by pages that were written to the catalogue.",
    labels=("supplier",),
    by_tenant=True,
)
FEED_WARNINGS_TOTAL = Metric(
    name="contextworker_feed_warnings_total",
    kind=Kind.COUNTER,
    help="Warnings about rows of feeds, by pages that were written to the catalogue.",
    labels=("supplier",),
    by_tenant=True,
)
PROGRAMS_TOTAL = Metric(
    name="contextworker_programs_total",
    kind=Kind.COUNTER,
    help="Programs that ended in a sandbox of this worker. `outcome` is ok, exception, timeout, and so on.",
    labels=("backend", "outcome"),
    by_tenant=True,
)
PROGRAMS_RUNNING = Metric(
    name="contextworker_programs_running", kind=Kind.GAUGE, help="Programs that run in sandboxes of this worker."
)
PROGRAMS_WAITING = Metric(
    name="contextworker_programs_waiting", kind=Kind.GAUGE, help="Programs that wait for a sandbox of this worker."
)

METRICS: tuple[Metric, ...] = (
    *(RPC_TOTAL, RPC_SECONDS, RPC_IN_FLIGHT, RPC_REQUEST_BYTES, RPC_RESPONSE_BYTES, QUOTA_REFUSALS_TOTAL),
    *(WORKFLOWS_TOTAL, START_SECONDS, ACTIVITY_FAILURES_TOTAL, ACTIVITY_RETRIES_TOTAL),
    *(FETCHED_BYTES_TOTAL, FEED_ROWS_TOTAL, FEED_REJECTS_TOTAL, FEED_WARNINGS_TOTAL),
    *(PROGRAMS_TOTAL, PROGRAMS_RUNNING, PROGRAMS_WAITING),
)
"""All metrics, in the order of the documentation."""


class _Recorder:
    """Instruments of a runtime that exports metrics, created on first use."""

    def __init__(self, meter: MetricMeter) -> None:
        self._meter = meter
        self._instruments = dict[str, Any]()
        # Bounded, because values of labels come from code, contracts and settings.
        self._labelled = dict[tuple[str, ...], Any]()

    def instrument(self, metric: Metric, labels: Mapping[str, str], tenant: str) -> Any:
        """Return the instrument of a metric with its labels; with bound labels, a record takes a microsecond."""
        values = tuple(labels[name] for name in metric.labels)
        if len(values) != len(labels):
            raise TypeError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        if metric.by_tenant and _classes:
            values = (*values, tenant_class(tenant))
        key = (metric.name, *values)
        found = self._labelled.get(key)
        if found is None:
            named = dict(zip((*metric.labels, "tenant"), values, strict=False))
            found = self._labelled[key] = self._of(metric).with_additional_attributes(named)
        return found

    def _of(self, metric: Metric) -> Any:
        found = self._instruments.get(metric.name)
        if found is None:
            meter = self._meter
            create: dict[Kind, Callable[[str, str], Any]] = {
                Kind.COUNTER: meter.create_counter,
                Kind.GAUGE: meter.create_gauge,
                Kind.HISTOGRAM: meter.create_histogram_float,
            }
            found = self._instruments[metric.name] = create[metric.kind](metric.name, metric.help)
        return found


_classes: Mapping[str, str] = {}
"""Classes by tenant."""


@functools.lru_cache(maxsize=1)
def _recorder_of(runtime: Runtime) -> _Recorder | None:
    meter = runtime.metric_meter
    return None if meter is MetricMeter.noop else _Recorder(meter)


def _recorder() -> _Recorder | None:
    """Return the instruments; None if nothing is exported."""
    try:
        runtime = Runtime.default()
    except RuntimeError:
        # A program that embeds us may forbid a default runtime, and we do not know the one that it uses instead.
        return None
    return _recorder_of(runtime)


def tenant_class(tenant: str) -> str:
    """Return the class of a tenant for labels: an id only if the settings say so."""
    return _classes.get(tenant, _OTHER)


def serve_metrics(settings: Settings, core_log: LoggingConfig | None = LoggingConfig.default) -> str:
    """Serve the metrics of this process until it ends. Call it before anything connects to Temporal.

    Args:
        settings: `metrics_host`, `metrics_port` and `metric_tenants`.
        core_log: logging configuration of the SDK's runtime.

    Returns:
        The URL of the endpoint; empty if the settings have no port.

    Raises:
        PortTakenError: the address cannot be listened on.
        SettingsError: the host is not an address of this machine, or the process has a default Runtime already.
    """
    global _classes
    if settings.metrics_port is None:
        return ""
    host = _address_of(settings.metrics_host)
    for attempt in range(_FREE_PORT_ATTEMPTS):
        # The exporter does not report which port it took, so find a free one here.
        port = settings.metrics_port or _free_port(host)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            runtime = _runtime(where, core_log)
            break
        except ValueError as error:
            if settings.metrics_port or attempt == _FREE_PORT_ATTEMPTS - 1:
                reason = str(error).rpartition("exporter: ")[2].partition(" (os error")[0].lower()
                raise PortTakenError(where, _SETTING, reason) from None
    else:
        raise AssertionError("the last attempt breaks or raises")
    try:
        Runtime.set_default(runtime)
    except RuntimeError:
        raise SettingsError(
            [
                "metrics_port is set, but a module made the default Runtime of Temporal's SDK when it was imported; "
                "give that one an exporter and unset metrics_port, or make it later"
            ]
        ) from None
    _classes = dict(settings.metric_tenants)
    return f"http://{where}/metrics"


def _runtime(address: str, core_log: LoggingConfig | None) -> Runtime:
    exporter = PrometheusConfig(
        bind_address=address,
        # The SDK's durations in seconds, like ours.
        durations_as_seconds=True,
        histogram_bucket_overrides={metric.name: metric.buckets for metric in METRICS if metric.buckets},
    )
    # Prometheus adds the labels of the scraped target itself.
    return Runtime(telemetry=TelemetryConfig(logging=core_log, metrics=exporter, attach_service_name=False))


def _address_of(host: str) -> str:
    """Return the numeric address of a host: the exporter accepts no names."""
    try:
        found = socket.getaddrinfo(host.removeprefix("[").removesuffix("]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(
            [f"metrics_host = {host!r}: {(error.strerror or str(error)).lower()}; set CONTEXTWORKER_METRICS_HOST"]
        ) from None
    # For a name such as localhost, clients try IPv4 too; not all of them try IPv6.
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return str(found[0][4][0])


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise PortTakenError(host, _SETTING, (error.strerror or str(error)).lower()) from None
        port: int = probe.getsockname()[1]
        return port


class CallMeter:
    """Measures calls of all listeners; see `call_meter`."""

    def __init__(self) -> None:
        self._in_flight = dict[str, int]()

    def begin(self, method: str) -> None:
        """Count a call that begins."""
        self._count(method, 1)

    def end(self, method: str, tenant: str, code: str, *, seconds: float, received: int, sent: int) -> None:
        """Count a call that ended.

        Args:
            method: the called method.
            tenant: the caller's tenant; empty if it is unknown, or if there are several.
            code: name of the status.
            seconds: duration from the headers to the end.
            received: bytes of the request.
            sent: bytes of the responses.
        """
        self._count(method, -1)
        RPC_TOTAL.add(1, method=method, code=code, tenant=tenant)
        RPC_SECONDS.observe(seconds, method=method, tenant=tenant)
        RPC_REQUEST_BYTES.observe(received, method=method, tenant=tenant)
        RPC_RESPONSE_BYTES.observe(sent, method=method, tenant=tenant)

    def _count(self, method: str, change: int) -> None:
        self._in_flight[method] = self._in_flight.get(method, 0) + change
        RPC_IN_FLIGHT.set(self._in_flight[method], method=method)


def call_meter() -> CallMeter | None:
    """Return what measures calls; None if nothing is exported, so that calls are not wrapped."""
    return None if _recorder() is None else CallMeter()
