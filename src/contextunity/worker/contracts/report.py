"""Print findings as text, JSON, or SARIF for code scanning, and all rules as a reference page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .findings import FAMILIES, RULES, Breaks, Family, Finding, Place, Rule, Severity
from .gate import EXCEPTIONS_FILE, Report

__all__ = ["as_json", "as_sarif", "as_text", "reference"]


def as_text(report: Report) -> str:
    """Format a report for people: each finding with its place, who breaks and the way out, then a summary line."""
    lines = [line for finding in report.findings for line in (*_finding_lines(finding, strict=report.strict), "")]
    return "\n".join((*lines, summary(report)))


def summary(report: Report) -> str:
    """Count the findings, in one line."""
    errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
    told = ", ".join(_counted(count, word) for count, word in ((errors, "error"), (warnings, "warning")) if count)
    excepted = f"; {len(report.excepted)} excepted by {EXCEPTIONS_FILE}" if report.excepted else ""
    return f"{told or 'nothing breaks'}, compared with {report.against}{excepted}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _finding_lines(finding: Finding, *, strict: bool) -> list[str]:
    place = finding.new or finding.old
    head = f"{finding.severity(strict=strict).value} {finding.rule.id}: {finding.path}"
    lines = [f"{place}: {head}" if place is not None else head, f"  {finding.text}"]
    if finding.old is not None:
        lines.append(f"  before   {finding.old}")
    if finding.breaks:
        lines.append(f"  breaks   {_names(finding.breaks)}")
    return [*lines, f"  way out  {finding.rule.way_out}"]


def _names(breaks: Iterable[Breaks]) -> str:
    return ", ".join(each.value for each in breaks)


def as_json(report: Report) -> dict[str, Any]:
    """Format a report as one JSON document."""
    return {
        "against": report.against,
        "strict": report.strict,
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "findings": [_finding_json(each, strict=report.strict) for each in report.findings],
        "excepted": [_finding_json(each, strict=report.strict) for each in report.excepted],
    }


def _finding_json(finding: Finding, *, strict: bool) -> dict[str, Any]:
    return {
        "rule": finding.rule.id,
        "family": finding.rule.family.value,
        "severity": finding.severity(strict=strict).value,
        "path": finding.path,
        "text": finding.text,
        "new": _place_json(finding.new),
        "old": _place_json(finding.old),
        "breaks": [each.value for each in finding.breaks],
        "way_out": finding.rule.way_out,
        **({"reason": finding.reason} if finding.reason else {}),
    }


def _place_json(place: Place | None) -> dict[str, Any] | None:
    return {"file": place.file, "line": place.line} if place is not None else None


def as_sarif(report: Report) -> dict[str, Any]:
    """Format a report as a SARIF 2.1.0 log for code scanning. Excepted findings are suppressed, with their reason."""
    findings = [*report.findings, *report.excepted]
    rules = {each.rule.id: each.rule for each in findings}
    numbers = {name: number for number, name in enumerate(rules)}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "contextworker contract",
                        "rules": [_rule_sarif(each) for each in rules.values()],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(each, numbers[each.rule.id], strict=report.strict) for each in findings],
            }
        ],
    }


def _rule_sarif(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.what},
        "help": {"text": rule.way_out},
        "defaultConfiguration": {"level": rule.severity.value},
        "properties": {"family": rule.family.value, "breaks": [each.value for each in rule.breaks]},
    }


def _result(finding: Finding, number: int, *, strict: bool) -> dict[str, Any]:
    before = f" It was at {finding.old}." if finding.old is not None else ""
    breaks = f" Breaks {_names(finding.breaks)}." if finding.breaks else ""
    result: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "ruleIndex": number,
        "level": finding.severity(strict=strict).value,
        "message": {"text": f"{finding.path}: {finding.text}.{before}{breaks} {finding.rule.way_out}"},
        # Code scanning hides results without a location; a finding without one gets buf.yaml.
        "locations": [{**_location(_here(finding)), "logicalLocations": [{"fullyQualifiedName": finding.path}]}],
        "partialFingerprints": {"contextworker/v1": f"{finding.rule.id} {finding.path} {finding.text}"},
    }
    if finding.old is not None and Path(finding.old.file).is_file():
        result["relatedLocations"] = [{"id": 1, "message": {"text": "before"}, **_location(finding.old)}]
    if finding.reason:
        result["suppressions"] = [{"kind": "external", "justification": finding.reason}]
    return result


def _here(finding: Finding) -> Place:
    for place in (finding.new, finding.old):
        if place is not None and Path(place.file).is_file():
            return place
    return Place("buf.yaml")


def _location(place: Place) -> dict[str, Any]:
    region = {"region": {"startLine": max(place.line, 1)}}
    return {"physicalLocation": {"artifactLocation": {"uri": quote(place.file)}, **region}}


_HEAD = """\
# What `contextworker contract check` finds

<!-- Written by tools/contract_rules_reference.py from the rules themselves; run `make generate` to update it. -->

Errors end the check with exit code 1; warnings do so with `--strict`.
[guard-your-contract.md](../how-to/guard-your-contract.md) says how to run it, and how to except a finding by its rule and path.
"""  # noqa: E501 - in Markdown a paragraph is a line

_WIRE = """
The rules of `buf breaking` that your buf.yaml selects, with buf's names; `FILE` by default.
Each is an error that breaks callers, workers on the old build and running tasks.
"""


def reference() -> str:
    """Format all rules as Markdown."""
    parts = [_HEAD]
    for family, title in FAMILIES.items():
        parts.append(f"\n## {title}\n")
        if family is Family.WIRE:
            parts.append(_WIRE)
            continue
        parts.append("\n| rule | severity | finds | breaks | way out |\n|---|---|---|---|---|\n")
        parts += [_row(each) for each in _of(family)]
    return "".join(parts)


def _of(family: Family) -> Iterable[Rule]:
    return (each for each in RULES.values() if each.family is family)


def _row(rule: Rule) -> str:
    cells = (f"`{rule.id}`", rule.severity.value, rule.what, _names(rule.breaks) or "nobody", rule.way_out)
    return f"| {' | '.join(cells)} |\n"
