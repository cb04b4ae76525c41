"""The dashboard and the alerts: they are what the tool writes, use what there is, and each alert has its runbook."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contextunity.worker.metrics import METRICS, Kind
from tests.conftest import ROOT
from tests.promql import base, grouped, parse, used

_TOOL = ROOT / "tools/monitoring.py"
_RULES = ROOT / "deploy/prometheus/contextworker.rules.yaml"
_RUNBOOK = (ROOT / "docs/how-to/runbook.md").read_text(encoding="utf-8")
_METRICS_PAGE = (ROOT / "docs/how-to/metrics.md").read_text(encoding="utf-8")
_PROMETHEUS_OWN = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
"""Metrics that Prometheus itself makes of each process that it reads."""
_GIVEN_BY_PROMETHEUS = {"job", "instance"}
_DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/contextworker.json").read_text(encoding="utf-8"))
# PyYAML has no types.
_YAML: Any = importlib.import_module("yaml")
_ALERTS: list[dict[str, Any]] = _YAML.safe_load(_RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
_TARGETS = [target for panel in _DASHBOARD["panels"] for target in panel.get("targets", ())]
_PAGE_QUERIES = re.findall(r"\| `(.+?)` \|$", _METRICS_PAGE, re.MULTILINE)
_QUERIES = [*(each["expr"] for each in (*_TARGETS, *_ALERTS)), *_PAGE_QUERIES]


def test_the_files_are_what_the_tool_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(_TOOL), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_there_is_something_to_check() -> None:
    assert len(_TARGETS) > 30
    assert 8 <= len(_ALERTS) <= 15
    assert len(_PAGE_QUERIES) >= 9


@pytest.mark.parametrize("query", _QUERIES)
def test_queries_use_metrics_that_there_are_with_their_labels(query: str) -> None:
    ours = {metric.name: metric for metric in METRICS}
    for name, labels in used(query).items():
        own = labels - _GIVEN_BY_PROMETHEUS
        if name in _PROMETHEUS_OWN:
            assert own == set()
        elif name.startswith("temporal_"):
            # tests/worker/test_metrics.py asks a worker for these.
            continue
        else:
            metric = ours[name if name in ours else base(name)]
            assert (name != metric.name) == (metric.kind is Kind.HISTOGRAM)
            assert own - {"le"} <= set(metric.labels)
            assert "le" not in own or name.endswith("_bucket")


def test_all_metrics_of_ours_are_in_the_dashboard() -> None:
    shown = {base(name) for target in _TARGETS for name in used(target["expr"])}
    assert {metric.name for metric in METRICS} - shown == set()


@pytest.mark.parametrize("wrong", ["sum by (method) (rate(a_total[5m])", "rate(a_total)", "sum(a) by (", "a{b=c}"])
def test_queries_that_are_none_are_found(wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(wrong)


def test_the_dashboard_is_one() -> None:
    panels = _DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    variables = {each["name"]: each for each in _DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "instance"}
    for name in ("job", "instance"):
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variables[name]["query"])
        assert found is not None
        assert found[2] == name
        assert used(found[1]).keys() == {"temporal_request"}
    for target in _TARGETS:
        assert target["datasource"]["uid"] == "${datasource}"
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        # Series with the same legend could not be told apart.
        assert legend == grouped(target["expr"]), target


def test_alerts_say_what_is_wrong() -> None:
    assert len({alert["alert"] for alert in _ALERTS}) == len(_ALERTS)
    for alert in _ALERTS:
        assert re.fullmatch(r"ContextWorker[A-Z]\w+", alert["alert"])
        assert re.fullmatch(r"\d+m", alert["for"])
        assert alert["labels"]["severity"] in ("page", "ticket")
        named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert named, alert["alert"]
        assert named <= grouped(alert["expr"]), alert["alert"]


def test_each_alert_has_its_runbook_and_nothing_else_has() -> None:
    sections = re.split(r"^## ", _RUNBOOK, flags=re.MULTILINE)[1:]
    by_name = {section.partition("\n")[0].strip(): section for section in sections}
    alerts = {name for name in by_name if name.startswith("ContextWorker")}
    assert alerts == {alert["alert"] for alert in _ALERTS}
    for alert in _ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/how-to/runbook.md#{alert['alert'].lower()}"
        section = by_name[alert["alert"]]
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in section, f"{alert['alert']} lacks {part}"
        assert "contextworker " in section, f"{alert['alert']} names no command to look with"


def test_commands_of_the_runbook_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    from contextunity.worker.cli.commands import COMMANDS

    named = re.findall(r"`contextworker ([a-z]+)", _RUNBOOK) + re.findall(r"^contextworker ([a-z]+)", _RUNBOOK, re.M)
    assert len(named) > 12
    assert set(named) - COMMANDS.keys() == set()


def test_alerts_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of Debian's package prometheus, is not installed")
    command = [promtool, "test", "rules", str(Path(__file__).with_name("alerts_test.yaml"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case(tool: ModuleType) -> None:
    cases = _YAML.safe_load(Path(__file__).with_name("alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    tested = {case["alertname"]: case for each in cases for case in each["alert_rule_test"]}
    assert tested.keys() == {alert.name for alert in tool.ALERTS}
    quiet = {case["alertname"] for each in cases for case in each["alert_rule_test"] if not case["exp_alerts"]}
    assert quiet == tested.keys()
