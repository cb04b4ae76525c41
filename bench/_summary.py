"""All goals of a run in one table, with the target beside what was measured; the same as JSON and as a plot."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

from ._model import Goal, Result
from ._report import number

__all__ = ["show", "write"]

_ROW, _LABEL, _BARS, _END = 22, 560, 360, 170
"""Pixels: height of a row, width of its label, of its bars and of the text behind them."""
_DECADES = 2.0
"""Powers of ten that the bars show in either direction."""


def show(console: Console, results: Mapping[str, Result]) -> None:
    """Prints every goal of every benchmark."""
    table = Table("benchmark", "compared", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in ("measured", "target"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, goal in _goals(results):
        verdict = "[green]met[/green]" if goal.reached else "[red]missed[/red]"
        table.add_row(name, goal.name, _value(goal), _target(goal), verdict)
    console.print("\n[bold]All comparisons[/bold]")
    console.print(table)


def write(folder: Path, results: Mapping[str, Result], machine: dict[str, Any]) -> list[Path]:
    """Writes `summary.json` and `summary.svg` into the folder, and gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "goals": [
            {"benchmark": name, **dataclasses.asdict(goal), "reached": goal.reached} for name, goal in _goals(results)
        ],
    }
    data, plot = folder / "summary.json", folder / "summary.svg"
    data.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot.write_text(_plot(_goals(results)), encoding="utf-8")
    return [data, plot]


def _goals(results: Mapping[str, Result]) -> list[tuple[str, Goal]]:
    return [(name, goal) for name, result in results.items() for goal in result.goals]


def _value(goal: Goal) -> str:
    return f"{number(goal.value)}{_unit(goal)}"


def _target(goal: Goal) -> str:
    return f"{'≥' if goal.at_least else '≤'} {number(goal.limit)}{_unit(goal)}"


def _unit(goal: Goal) -> str:
    return "x" if goal.unit == "x" else f" {goal.unit}"


def _plot(goals: list[tuple[str, Goal]]) -> str:
    """Bars from the target, on a logarithmic scale: to the right what is better than it, to the left what is worse."""
    width, height = _LABEL + _BARS + _END, _ROW * (len(goals) + 2)
    middle = _LABEL + _BARS / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{middle}" y="{_ROW * 0.7}" text-anchor="middle">worse than the target | better</text>',
        f'<line x1="{middle}" y1="{_ROW}" x2="{middle}" y2="{height - _ROW}" stroke="#444"/>',
    ]
    for at, (name, goal) in enumerate(goals, start=1):
        y = _ROW * at
        length = _length(goal)
        x = middle if length >= 0 else middle + length
        colour = "#2a8f4f" if goal.reached else "#c0392b"
        baseline = y + _ROW * 0.7
        lines += [
            f'<text x="{_LABEL - 8}" y="{baseline}" text-anchor="end">{escape(f"{name}: {goal.name}")}</text>',
            f'<rect x="{x:.1f}" y="{y + 4}" width="{abs(length):.1f}" height="{_ROW - 8}" fill="{colour}"/>',
            f'<text x="{_LABEL + _BARS + 8}" y="{baseline}">{escape(f"{_value(goal)}  ({_target(goal)})")}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _length(goal: Goal) -> float:
    """Pixels to the right where it is better than its target, to the left where it is worse."""
    if goal.value <= 0 or goal.limit <= 0:
        return 0.0
    times = goal.value / goal.limit if goal.at_least else goal.limit / goal.value
    return max(-1.0, min(1.0, math.log10(times) / _DECADES)) * _BARS / 2
