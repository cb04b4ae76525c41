"""`python -m contextunity.modules.gardener evaluate FILE`: measure the quality of the rules on a product export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contextunity.core.errors import ContextUnityError
from contextunity.worker.cli.output import escape_unprintable_output

from .evaluate import ATTRIBUTES, BUNDLED_LABELS, Score, Summary, read_export, read_labels
from .rules import RuleEnricher
from .taxonomy import BUNDLED_TAXONOMY, load_taxonomy

_TITLES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a file; return 0 for success, 1 for failure, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m contextunity.modules.gardener", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "evaluate",
        help="enrich a product export with the rules, and report how much is found, and how much of it is right",
    )
    command.add_argument("file", type=Path, metavar="FILE", help="a product export in Shopify's CSV format")
    command.add_argument(
        "--labels", type=Path, default=BUNDLED_LABELS, help="labels of the rows (those of the bundled feed)"
    )
    command.add_argument("--taxonomy", type=Path, default=BUNDLED_TAXONOMY, help="the words (the included ones)")
    arguments = parser.parse_args(argv)
    escape_unprintable_output()
    console = Console()
    try:
        summary = _evaluate(arguments.file, arguments.labels, arguments.taxonomy)
    except ContextUnityError as error:
        console.print(f"gardener: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    _show(console, summary)
    return 0


def _evaluate(file: Path, labels: Path, taxonomy: Path) -> Summary:
    rules, known, summary = RuleEnricher(load_taxonomy(taxonomy)), read_labels(labels), Summary()
    for product in read_export(file):
        summary.add(product, rules.enrich_one(product), known.get(product.sku))
    return summary


def _show(console: Console, summary: Summary) -> None:
    rows = max(summary.rows, 1)
    console.print(f"{summary.rows:,} rows, completeness {summary.completeness / rows:.0f} of 100 on average")
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("found", justify="right")
    parts = sorted(summary.labelled)
    for part in parts:
        table.add_column(f"{part}: precision", justify="right")
        table.add_column("recall", justify="right")
    for name in ATTRIBUTES:
        scores = [summary.scores.get((part, name), Score()) for part in parts]
        figures = [f"{figure:.3f}" for score in scores for figure in (score.precision, score.recall)]
        table.add_row(name, f"{summary.found[name] / rows:.0%}", *figures)
    console.print(table)
    if parts:
        counts = ", ".join(f"{summary.labelled[part]} of {part}" for part in parts)
        console.print(f"labelled rows: {counts}", highlight=False)
    for title, counter in (("lacking", summary.missing), ("without a category", summary.uncategorised)):
        if counter:
            found = ", ".join(f"{name} ({count:,})" for name, count in counter.most_common(_TITLES))
            console.print(f"{title}: {found}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
