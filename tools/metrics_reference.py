"""Writes docs/reference/metrics.md from the table of metrics.

`python tools/metrics_reference.py` writes it; with `--check` it exits with 1 where the file is not what it would write.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from contextunity.worker.metrics import METRICS, Metric

_FILE = Path(__file__).resolve().parent.parent / "docs/reference/metrics.md"

_HEAD = """\
# Metrics

<!-- Written by tools/metrics_reference.py from contextunity.worker.metrics; run `make generate` to update it. -->

With `CONTEXTWORKER_METRICS_PORT` each process (service, worker, `dev`) serves these for Prometheus at `http://HOST:PORT/metrics`, with those of [Temporal's SDK](https://docs.temporal.io/references/sdk-metrics), whose durations are in seconds.
A metric is there once something was counted. [How to watch a deployment](../how-to/metrics.md) has the settings, and queries to begin with.

| metric | kind | labels | what it counts |
|---|---|---|---|
"""  # noqa: E501 - in Markdown a paragraph is a line

_FOOT = """
*tenant*: only if `metric_tenants` is set. Its value is the class that it gives to a tenant, and `other` for all tenants that it does not list, and where the tenant is not known: for calls of tokens for several tenants, and without tokens.

Buckets of histograms, as upper bounds:

| metric | buckets |
|---|---|
"""  # noqa: E501 - as is a row


def render() -> str:
    """Return the text of the file."""
    histograms = [metric for metric in METRICS if metric.buckets]
    rows = "".join(map(_row, METRICS))
    return _HEAD + rows + _FOOT + "".join(map(_buckets, histograms))


def _row(metric: Metric) -> str:
    labels = [f"`{name}`" for name in metric.labels] + (["*tenant*"] if metric.by_tenant else [])
    return f"| `{metric.name}` | {metric.kind.value} | {', '.join(labels)} | {metric.help} |\n"


def _buckets(metric: Metric) -> str:
    return f"| `{metric.name}` | {', '.join(f'{bound:,.10g}' for bound in metric.buckets)} |\n"


def main() -> int:
    """Writes the file, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the file is not up to date")
    arguments = parser.parse_args()
    text = render()
    if arguments.check:
        if not _FILE.exists() or _FILE.read_text(encoding="utf-8") != text:
            print(f"{_FILE} is not what the table of metrics gives; commit what 'make generate' writes")
            return 1
        return 0
    _FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
