"""Writes deploy/grafana/contextworker.json, a dashboard, and deploy/prometheus/contextworker.rules.yaml, the alerts.

`python tools/monitoring.py` writes them; with `--check` it exits with 1 where a file is not what it would write.
Names of our metrics come from contextunity.worker.metrics, so that one that is renamed there cannot stay here. Those of
Temporal's SDK are texts; tests/worker/test_metrics.py compares all of them with what a worker serves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextunity.worker import metrics as ours

__all__ = ["ALERTS", "ROWS", "Alert", "Panel"]

_DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
_DASHBOARD = _DEPLOY / "grafana/contextworker.json"
_RULES = _DEPLOY / "prometheus/contextworker.rules.yaml"
_RUNBOOK = "docs/how-to/runbook.md"

_WIDTH, _HEIGHT = 8, 8
_HERE = 'job=~"$job",instance=~"$instance"'
"""What the variables at the top of the dashboard select; Prometheus itself gives these labels."""
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A panel of the dashboard.

    Attributes:
        title: what it shows.
        unit: unit of its values, in Grafana's words.
        queries: PromQL, and the legend of each series.
        description: what to look for; shown at the panel's corner.
    """

    title: str
    unit: str
    queries: Mapping[str, str]
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """An alert; the runbook has a section of its name.

    Attributes:
        name: name of the alert.
        expr: PromQL that gives a series for each thing that is wrong.
        lasts: how long it has to be so before anybody is told.
        severity: page (somebody has to act now) or ticket (within days).
        summary: what is wrong, with the labels of the series.
    """

    name: str
    expr: str
    lasts: str
    severity: str
    summary: str


def _rate(metric: ours.Metric | str, by: str, matchers: str = "") -> str:
    """Return how often a counter counts, a second, by labels."""
    name = metric if isinstance(metric, str) else metric.name
    selected = f"{_HERE},{matchers}" if matchers else _HERE
    return f"sum by ({by}) (rate({name}{{{selected}}}[$__rate_interval]))"


def _quantile(share: float, metric: ours.Metric | str, by: str, matchers: str = "") -> str:
    """Return below what a share of a histogram's values lie, by labels."""
    name = metric if isinstance(metric, str) else metric.name
    return f"histogram_quantile({share}, {_rate(f'{name}_bucket', f'le, {by}', matchers)})"


def _gauge(metric: ours.Metric | str, by: str, matchers: str = "") -> str:
    name = metric if isinstance(metric, str) else metric.name
    selected = f"{_HERE},{matchers}" if matchers else _HERE
    return f"sum by ({by}) ({name}{{{selected}}})"


ROWS: Mapping[str, Sequence[Panel]] = {
    "Calls": (
        Panel(title="Calls", unit="reqps", queries={_rate(ours.RPC_TOTAL, "method"): "{{method}}"}),
        Panel(
            title="Calls that fail",
            unit="reqps",
            queries={_rate(ours.RPC_TOTAL, "method, code", 'code!="OK"'): "{{method}} {{code}}"},
            description="CANCELLED are watches that callers ended; UNAVAILABLE and INTERNAL are ours.",
        ),
        Panel(title="Calls under way", unit="short", queries={_gauge(ours.RPC_IN_FLIGHT, "method"): "{{method}}"}),
        Panel(
            title="Seconds of a call, median",
            unit="s",
            queries={_quantile(0.5, ours.RPC_SECONDS, "method", 'method!="WatchTask"'): "{{method}}"},
        ),
        Panel(
            title="Seconds of a call, 99 of 100",
            unit="s",
            queries={_quantile(0.99, ours.RPC_SECONDS, "method", 'method!="WatchTask"'): "{{method}}"},
            description="Calls of contracts' own methods last as long as their workflows.",
        ),
        Panel(
            title="Rejected by quotas",
            unit="reqps",
            queries={_rate(ours.QUOTA_REFUSALS_TOTAL, "quota, method"): "{{quota}} {{method}}"},
        ),
        Panel(
            title="Bytes of requests, 99 of 100",
            unit="bytes",
            queries={_quantile(0.99, ours.RPC_REQUEST_BYTES, "method"): "{{method}}"},
        ),
        Panel(
            title="Bytes of answers, 99 of 100",
            unit="bytes",
            queries={_quantile(0.99, ours.RPC_RESPONSE_BYTES, "method"): "{{method}}"},
        ),
    ),
    "Workflows and activities": (
        Panel(
            title="Ends of workflows",
            unit="ops",
            queries={_rate(ours.WORKFLOWS_TOTAL, "workflow_type, status"): "{{workflow_type}} {{status}}"},
            description="Timeouts and terminations end at the Temporal server, and are not counted here.",
        ),
        Panel(
            title="Seconds from a start to its first workflow task, 99 of 100",
            unit="s",
            queries={_quantile(0.99, ours.START_SECONDS, "workflow_type"): "{{workflow_type}}"},
            description="Rising values mean too few workers, or a Temporal server that is busy.",
        ),
        Panel(
            title="Seconds of a workflow, 90 of 100",
            unit="s",
            queries={_quantile(0.9, "temporal_workflow_endtoend_latency", "workflow_type"): "{{workflow_type}}"},
        ),
        Panel(
            title="Activities that fail, by type of the error",
            unit="ops",
            queries={
                _rate(
                    ours.ACTIVITY_FAILURES_TOTAL, "activity_type, error_type", 'benign="false"'
                ): "{{activity_type}} {{error_type}}"
            },
        ),
        Panel(
            title="Retries of activities",
            unit="ops",
            queries={_rate(ours.ACTIVITY_RETRIES_TOTAL, "activity_type"): "{{activity_type}}"},
        ),
        Panel(
            title="Seconds of an activity, 90 of 100",
            unit="s",
            queries={_quantile(0.9, "temporal_activity_execution_latency", "activity_type"): "{{activity_type}}"},
        ),
        Panel(
            title="Activities that wait for their turn",
            unit="ops",
            queries={_rate(ours.ACTIVITY_FAILURES_TOTAL, "activity_type", 'benign="true"'): "{{activity_type}}"},
        ),
    ),
    "Feeds": (
        Panel(
            title="Bytes fetched",
            unit="Bps",
            queries={_rate(ours.FETCHED_BYTES_TOTAL, "activity_type"): "{{activity_type}}"},
        ),
        Panel(title="Rows read", unit="ops", queries={_rate(ours.FEED_ROWS_TOTAL, "supplier"): "{{supplier}}"}),
        Panel(
            title="Share of rows rejected",
            unit="percentunit",
            queries={
                f"{_rate(ours.FEED_REJECTS_TOTAL, 'supplier')} / {_rate(ours.FEED_ROWS_TOTAL, 'supplier')}": (
                    "{{supplier}}"
                )
            },
        ),
        Panel(
            title="Warnings about rows",
            unit="ops",
            queries={_rate(ours.FEED_WARNINGS_TOTAL, "supplier"): "{{supplier}}"},
        ),
    ),
    "Programs": (
        Panel(
            title="Programs that end",
            unit="ops",
            queries={_rate(ours.PROGRAMS_TOTAL, "backend, outcome"): "{{backend}} {{outcome}}"},
        ),
        Panel(
            title="Sandboxes",
            unit="short",
            queries={
                _gauge(ours.PROGRAMS_RUNNING, "instance"): "{{instance}} running",
                _gauge(ours.PROGRAMS_WAITING, "instance"): "{{instance}} waiting",
            },
        ),
    ),
    "Workers": (
        Panel(
            title="Pollers",
            unit="short",
            queries={_gauge("temporal_num_pollers", "task_queue, poller_type"): "{{task_queue}} {{poller_type}}"},
            description="A queue without pollers waits: start a worker for its module.",
        ),
        Panel(
            title="Seconds that workflow tasks wait for a worker, 90 of 100",
            unit="s",
            queries={
                _quantile(0.9, "temporal_workflow_task_schedule_to_start_latency", "task_queue"): "{{task_queue}}"
            },
        ),
        Panel(
            title="Seconds that activities wait for a worker, 90 of 100",
            unit="s",
            queries={_quantile(0.9, "temporal_activity_schedule_to_start_latency", "task_queue"): "{{task_queue}}"},
            description="Rising values mean too few workers or slots.",
        ),
        Panel(
            title="Slots in use",
            unit="short",
            queries={
                _gauge("temporal_worker_task_slots_used", "task_queue, worker_type"): "{{task_queue}} {{worker_type}}"
            },
        ),
        Panel(
            title="Slots free",
            unit="short",
            queries={
                _gauge(
                    "temporal_worker_task_slots_available", "task_queue, worker_type"
                ): "{{task_queue}} {{worker_type}}"
            },
        ),
        Panel(
            title="Workflows in memory",
            unit="short",
            queries={_gauge("temporal_sticky_cache_size", "task_queue"): "{{task_queue}}"},
        ),
        Panel(
            title="Seconds of a workflow task, 90 of 100",
            unit="s",
            queries={_quantile(0.9, "temporal_workflow_task_execution_latency", "workflow_type"): "{{workflow_type}}"},
        ),
        Panel(
            title="Seconds to replay a workflow, 90 of 100",
            unit="s",
            queries={_quantile(0.9, "temporal_workflow_task_replay_latency", "workflow_type"): "{{workflow_type}}"},
            description="Workflows that were not in memory; set max_cached_workflows higher if it happens often.",
        ),
    ),
    "Temporal server, as its clients see it": (
        Panel(title="Requests", unit="reqps", queries={_rate("temporal_request", "operation"): "{{operation}}"}),
        Panel(
            title="Requests that fail",
            unit="reqps",
            queries={_rate("temporal_request_failure", "operation, status_code"): "{{operation}} {{status_code}}"},
            description="NOT_FOUND and ALREADY_EXISTS are answers; UNAVAILABLE and RESOURCE_EXHAUSTED are trouble.",
        ),
        Panel(
            title="Seconds of a request, 99 of 100",
            unit="s",
            queries={_quantile(0.99, "temporal_request_latency", "operation"): "{{operation}}"},
        ),
    ),
    "Processes": (
        Panel(
            title="Up",
            unit="short",
            queries={f"up{{{_HERE}}}": "{{job}} {{instance}}"},
            description="Memory and processor time are not among these metrics; take them from the node or container.",
        ),
        Panel(
            title="Seconds to read the metrics",
            unit="s",
            queries={f"scrape_duration_seconds{{{_HERE}}}": "{{job}} {{instance}}"},
        ),
        Panel(
            title="Series",
            unit="short",
            queries={f"scrape_samples_scraped{{{_HERE}}}": "{{job}} {{instance}}"},
        ),
    ),
}

_OURS_TO_BLAME = "INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"
_TROUBLE = "UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|INTERNAL|UNKNOWN|PERMISSION_DENIED|UNAUTHENTICATED"

ALERTS: Sequence[Alert] = (
    Alert(
        name="ContextWorkerDown",
        expr='up{job=~"contextworker.*"} == 0',
        lasts="2m",
        severity="page",
        summary="{{ $labels.job }} at {{ $labels.instance }} does not answer Prometheus",
    ),
    Alert(
        name="ContextWorkerCallsFail",
        expr=(
            f'sum by (job) (rate({ours.RPC_TOTAL.name}{{code=~"{_OURS_TO_BLAME}"}}[5m]))'
            f" / sum by (job) (rate({ours.RPC_TOTAL.name}[5m])) > 0.05"
        ),
        lasts="10m",
        severity="page",
        summary="{{ $value | humanizePercentage }} of the calls of {{ $labels.job }} fail",
    ),
    Alert(
        name="ContextWorkerStartsSlow",
        expr=(
            "histogram_quantile(0.99, sum by (job, le) "
            f'(rate({ours.RPC_SECONDS.name}_bucket{{method="StartWorkflow"}}[5m]))) > 1'
        ),
        lasts="10m",
        severity="ticket",
        summary="one start in a hundred takes {{ $value | humanizeDuration }} in {{ $labels.job }}",
    ),
    Alert(
        name="ContextWorkerTemporalFails",
        expr=(
            f'sum by (job) (rate(temporal_request_failure{{status_code=~"{_TROUBLE}"}}[5m]))'
            " / sum by (job) (rate(temporal_request[5m])) > 0.05"
        ),
        lasts="5m",
        severity="page",
        summary="{{ $value | humanizePercentage }} of the requests of {{ $labels.job }} to the Temporal server fail",
    ),
    Alert(
        name="ContextWorkerQueueWithoutPollers",
        expr=(
            'sum by (task_queue) (max_over_time(temporal_num_pollers{poller_type!="sticky_workflow_task"}[6h])) > 0'
            ' unless sum by (task_queue) (temporal_num_pollers{poller_type!="sticky_workflow_task"}) > 0'
        ),
        lasts="5m",
        severity="page",
        summary="no worker polls the task queue {{ $labels.task_queue }} any more",
    ),
    Alert(
        name="ContextWorkerTasksWait",
        expr=(
            "histogram_quantile(0.9, sum by (task_queue, le) "
            "(rate(temporal_activity_schedule_to_start_latency_bucket[5m]))) > 10"
        ),
        lasts="15m",
        severity="ticket",
        summary="activities of {{ $labels.task_queue }} wait {{ $value | humanizeDuration }} for a worker",
    ),
    Alert(
        name="ContextWorkerSlotsUsedUp",
        expr=('sum by (task_queue) (temporal_worker_task_slots_available{worker_type="ActivityWorker"}) == 0'),
        lasts="15m",
        severity="ticket",
        summary="all workers of {{ $labels.task_queue }} are full",
    ),
    Alert(
        name="ContextWorkerWorkflowsFail",
        expr=(
            f'sum by (workflow_type) (increase({ours.WORKFLOWS_TOTAL.name}{{status="failed"}}[30m]))'
            f" / sum by (workflow_type) (increase({ours.WORKFLOWS_TOTAL.name}[30m])) > 0.2"
            f' and sum by (workflow_type) (increase({ours.WORKFLOWS_TOTAL.name}{{status="failed"}}[30m])) >= 3'
        ),
        lasts="5m",
        severity="ticket",
        summary="{{ $value | humanizePercentage }} of the workflows {{ $labels.workflow_type }} fail",
    ),
    Alert(
        name="ContextWorkerActivitiesFail",
        expr=(
            "sum by (activity_type, error_type) "
            f'(rate({ours.ACTIVITY_FAILURES_TOTAL.name}{{benign="false"}}[15m])) > 0.1'
        ),
        lasts="15m",
        severity="ticket",
        summary="attempts of {{ $labels.activity_type }} fail with {{ $labels.error_type }}, {{ $value }} a second",
    ),
    Alert(
        name="ContextWorkerQuotasUsedUp",
        expr=f"sum by (quota, method) (rate({ours.QUOTA_REFUSALS_TOTAL.name}[15m])) > 0.1",
        lasts="30m",
        severity="ticket",
        summary="{{ $labels.method }} is rejected by the quota {{ $labels.quota }}, {{ $value }} a second",
    ),
    Alert(
        name="ContextWorkerProgramsWait",
        expr=f"sum by (instance) (min_over_time({ours.PROGRAMS_WAITING.name}[5m])) > 0",
        lasts="10m",
        severity="ticket",
        summary="programs wait for a sandbox of {{ $labels.instance }} all the time",
    ),
    Alert(
        name="ContextWorkerFeedRejected",
        expr=(
            f"sum by (supplier) (increase({ours.FEED_REJECTS_TOTAL.name}[1h]))"
            f" / sum by (supplier) (increase({ours.FEED_ROWS_TOTAL.name}[1h])) > 0.3"
            f" and sum by (supplier) (increase({ours.FEED_ROWS_TOTAL.name}[1h])) > 100"
        ),
        lasts="5m",
        severity="ticket",
        summary="{{ $value | humanizePercentage }} of the rows of {{ $labels.supplier }} are rejected",
    ),
)


def render_dashboard() -> str:
    """Return the text of the dashboard."""
    panels, y = list[dict[str, Any]](), 0
    for row, content in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": 3 * _WIDTH, "x": 0, "y": y},
            }
        )
        y += 1
        for i, panel in enumerate(content):
            place = {"h": _HEIGHT, "w": _WIDTH, "x": _WIDTH * (i % 3), "y": y + _HEIGHT * (i // 3)}
            panels.append(_panel(len(panels) + 1, panel, place))
        y += _HEIGHT * (-(-len(content) // 3))
    dashboard = {
        "title": "ContextWorker",
        "uid": "contextworker",
        "description": "Written by tools/monitoring.py; run `make generate` to update it.",
        "tags": ["contextworker", "temporal"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=2) + "\n"


def _panel(number: int, panel: Panel, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _DATASOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries.items())
        ],
    }


def _variables() -> list[dict[str, Any]]:
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    # Services and workers alike send requests to Temporal.
    queries = {
        "job": "label_values(temporal_request, job)",
        "instance": 'label_values(temporal_request{job=~"$job"}, instance)',
    }
    return [
        datasource,
        *(
            {
                "name": name,
                "type": "query",
                "datasource": _DATASOURCE,
                "query": query,
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            }
            for name, query in queries.items()
        ),
    ]


def render_rules() -> str:
    """Return the text of the alerts, as YAML; JSON's strings are YAML's too."""
    lines = [
        "# Written by tools/monitoring.py; run `make generate` to update it. docs/how-to/runbook.md says what to do.",
        "groups:",
        "  - name: contextworker",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.lasts}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook: {_RUNBOOK}#{alert.name.lower()}",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the files, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a file is not up to date")
    arguments = parser.parse_args()
    old = list[Path]()
    for path, text in ((_DASHBOARD, render_dashboard()), (_RULES, render_rules())):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            old.append(path)
            if not arguments.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if arguments.check and old:
        print(f"{', '.join(map(str, old))}: not what tools/monitoring.py gives; commit what 'make generate' writes")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
