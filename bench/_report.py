"""Shows results as tables, and keeps them as JSON."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ._model import Goal, Measurement, Result

__all__ = ["show", "write"]


def show(console: Console, result: Result) -> None:
    """Prints medians, each with its ratio to the reference's, then the goals and the notes."""
    console.print(f"\n[bold]{result.title}[/bold]", highlight=False)
    for case in _unique(measured.case for measured in result.measurements):
        console.print(_case_table(result, [m for m in result.measurements if m.case == case], case))
    if result.goals:
        console.print(_goal_table(result.goals))
    for note in result.notes:
        console.print(f"· {note}", highlight=False, style="dim")


def write(folder: Path, name: str, result: Result, machine: dict[str, Any]) -> Path:
    """Writes a result, with every round's values, to `NAME.json` in the folder, and gives the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {
        "benchmark": name,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        **dataclasses.asdict(result),
        "measurements": [{**dataclasses.asdict(m), "median": m.median} for m in result.measurements],
        "goals": [{**dataclasses.asdict(goal), "reached": goal.reached} for goal in result.goals],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _case_table(result: Result, measurements: list[Measurement], case: str) -> Table:
    quantities = _unique((m.quantity, m.unit) for m in measurements)
    rounds = max(len(m.values) for m in measurements)
    table = Table(
        f"{case}, median of {rounds}", title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    for quantity, unit in quantities:
        table.add_column(f"{quantity} {unit}".strip(), justify="right")
    found = {(m.subject, m.quantity): m for m in measurements}
    for subject in _unique(m.subject for m in measurements):
        cells = [_cell(found, subject, quantity, result.reference) for quantity, _ in quantities]
        table.add_row(subject, *cells)
    return table


def _cell(found: dict[tuple[str, str], Measurement], subject: str, quantity: str, reference: str) -> str:
    measured, other = found.get((subject, quantity)), found.get((reference, quantity))
    if measured is None:
        return ""
    text = number(measured.median)
    if other is not None and other is not measured and all(other.values):
        text += f" [dim]({measured.ratio(other):.2f}x)[/dim]"
    return text


def _goal_table(goals: tuple[Goal, ...]) -> Table:
    table = Table("to reach", header_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("limit", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("")
    for goal in goals:
        unit = "x" if goal.unit == "x" else f" {goal.unit}"
        bound = "at least" if goal.at_least else "at most"
        verdict = "[green]reached[/green]" if goal.reached else "[red]missed[/red]"
        table.add_row(goal.name, f"{bound} {number(goal.limit)}{unit}", f"{number(goal.value)}{unit}", verdict)
    return table


def number(value: float) -> str:
    """Three digits that count, with thousands separated."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _unique(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))
