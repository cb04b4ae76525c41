"""`make run`: harvest a supplier end to end, with its own Temporal server, gRPC service and workers.

If a module enriches products, the new products are then enriched once. It calls the service over gRPC like any caller,
and knows that module by its workflow_type; only the rows that it shows are read from the catalogue.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextunity.gen.contextunity.harvest.v1.harvest_temporal import HARVEST_WORKFLOW_NAME
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from contextunity.core import CodecError, ContextUnityError
from contextunity.worker.cli.output import escape_unprintable_output, table_lines
from contextunity.worker.client import TaskHandle, WorkerClient, WorkerServiceError
from contextunity.worker.devserver import DevServer, running_dev_server
from contextunity.worker.modules.discovery import boot
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.settings import Settings

from .catalogue import Catalogue
from .settings import BUNDLED_SUPPLIER, HarvestSettings

_PLAIN_SECONDS = 2.0
"""Seconds between progress lines if the output is not a terminal."""
_SAMPLE_ROWS = 5
_ENRICH_WORKFLOW = "enrich"
"""workflow_type of a module that enriches harvested products; optional."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harvest. Return 0 if it completed, 1 if it did not, 2 for wrong settings or arguments."""
    parser = argparse.ArgumentParser(prog="python -m contextunity.modules.harvest", description=__doc__)
    parser.add_argument("--supplier-code", default=BUNDLED_SUPPLIER, help=f"configured supplier ({BUNDLED_SUPPLIER})")
    parser.add_argument("--tenant-id", default="my_project", help="tenant of the catalogue (my_project)")
    parser.add_argument("--force", action="store_true", help="read the feed even if it has not changed")
    arguments = parser.parse_args(argv)
    # The product's own output is what the person reads; logs are for services.
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    escape_unprintable_output()
    console = Console()
    try:
        settings, registry = boot()
        return asyncio.run(_run(console, settings, registry, arguments))
    except (ContextUnityError, CodecError) as error:
        console.print(f"harvest: {error}", style="red", markup=False, highlight=False)
        return int(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        console.print("stopped; run it again to continue")
        return 130


async def _run(console: Console, settings: Settings, registry: WorkerRegistry, arguments: argparse.Namespace) -> int:
    supplier_code, tenant_id = arguments.supplier_code, arguments.tenant_id
    console.print("Starting the Temporal server, the gRPC service and the workers …")
    async with running_dev_server(settings, registry) as stack:
        _show_stack(console, stack)
        async with WorkerClient(stack.grpc.target, tenant_id=tenant_id, provenance=["make:run"]) as client:
            try:
                parameters = {"supplier_code": supplier_code, "force": arguments.force}
                started = await client.start(HARVEST_WORKFLOW_NAME, parameters)
                console.print(f"StartWorkflow answered: workflow_id [bold]{started.workflow_id}[/bold]\n")
                task = await _watch(console, started, "opening the feed …", _of_harvest)
                if not _completed(console, "harvest", task):
                    return 1
                _show_result(console, settings, task["result"], tenant_id, supplier_code)
                if _ENRICH_WORKFLOW in registry.workflows:
                    started = await client.start(_ENRICH_WORKFLOW, {"supplier_code": supplier_code})
                    console.print(f"\nEnriching it: workflow_id [bold]{started.workflow_id}[/bold]\n", soft_wrap=True)
                    task = await _watch(console, started, "looking for products …", _of_enrichment)
                    if not _completed(console, "enrichment", task):
                        return 1
                    _show_enriched(console, settings, task["result"], tenant_id, supplier_code)
            except WorkerServiceError as error:
                console.print(str(error), style="red", markup=False, highlight=False)
                return 1
    _show_next(console)
    return 0


def _completed(console: Console, what: str, task: Mapping[str, Any]) -> bool:
    if task["status"] == "completed":
        return True
    console.print(f"The {what} {task['status']}: {task.get('error', '')}", style="red", markup=False)
    return False


_Tell = Callable[[Mapping[str, Any], float], tuple[str, float]]
"""Returns the progress of a task after so many seconds: as text, and as a fraction from 0 to 1."""


async def _watch(console: Console, started: TaskHandle, beginning: str, tell: _Tell) -> dict[str, Any]:
    """Follow the task until it ends, and show its progress."""
    view = _Bar(console, beginning) if console.is_terminal else _Lines(console)
    task: dict[str, Any] = {}
    began = time.monotonic()
    with view:
        async for answer in started.watch():
            task = answer.payload
            if task["status"] in ("completed", "running"):
                view.show(*tell(task, max(time.monotonic() - began, 0.001)))
    return task


def _of_harvest(task: Mapping[str, Any], seconds: float) -> tuple[str, float]:
    over = task["status"] == "completed"
    progress = task["result"] if over else task.get("progress", {})
    counts, total = progress.get("counts", {}), int(progress.get("bytes_total", 0))
    number = {key: int(counts.get(key, 0)) for key in ("pages", "fetched", "synced", "rejected")}
    rate = (number["synced"] + number["rejected"]) / seconds
    text = (
        f"{number['pages']} pages  {number['fetched']:,} fetched  {number['synced']:,} synced  "
        f"{number['rejected']} rejected  {rate:,.0f}/s"
    )
    return text, 1.0 if over else int(progress.get("bytes_done", 0)) / total if total else 0.0


def _of_enrichment(task: Mapping[str, Any], seconds: float) -> tuple[str, float]:
    over = task["status"] == "completed"
    progress = task["result"] if over else task.get("progress", {})
    enriched, failed = (int(progress.get(key, 0)) for key in ("enriched", "failed"))
    due = int(progress.get("due", 0))
    text = f"{enriched:,} enriched  {failed:,} failed  {enriched / seconds:,.0f}/s"
    return text, 1.0 if over else (enriched + failed) / due if due else 0.0


class _View:
    """Shows the progress of a task."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, text: str, done: float) -> None:
        """Show the numbers and the fraction that is done, from 0 to 1."""
        raise NotImplementedError


class _Bar(_View):
    def __init__(self, console: Console, beginning: str) -> None:
        super().__init__(console)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._progress.add_task(beginning, total=1.0)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, text: str, done: float) -> None:
        self._progress.update(self._task, completed=done, description=text)


class _Lines(_View):
    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._shown = 0.0

    def show(self, text: str, done: float) -> None:
        now = time.monotonic()
        if done >= 1.0 or now - self._shown >= _PLAIN_SECONDS:
            self._shown = now
            self.console.print(f"{done:4.0%}  {text}", highlight=False, markup=False)


def _show_stack(console: Console, stack: DevServer) -> None:
    console.print(f"  gRPC WorkerService  {stack.grpc.target}", highlight=False)
    console.print(f"  Temporal            {stack.temporal.address}", highlight=False)
    console.print(f"  Temporal web UI     {stack.temporal.ui_url}", highlight=False)
    console.print(f"  modules             {', '.join(module.config.name for module in stack.modules)}", highlight=False)


def _show_result(
    console: Console, settings: Settings, result: Mapping[str, Any], tenant_id: str, supplier_code: str
) -> None:
    counts = {key: int(value) for key, value in result.get("counts", {}).items()}
    console.print(
        f"\nHarvested: {counts.get('created', 0):,} created, {counts.get('changed', 0):,} changed, "
        f"{counts.get('unchanged', 0):,} unchanged, {counts.get('rejected', 0):,} rejected, "
        f"{int(result.get('delisted', 0)):,} no longer listed\n",
        highlight=False,
        soft_wrap=True,
    )
    if result.get("unchanged"):
        console.print(
            "The feed's server says that it has not changed since the last harvest (304 Not Modified), so nothing was "
            "downloaded.\nTo read it anyway, run\n\n"
            f"  {_short(sys.executable)} -m contextunity.modules.harvest --force\n",
            highlight=False,
            soft_wrap=True,
        )
    with _open_catalogue(settings) as catalogue:
        _show_rows(console, catalogue, tenant_id, supplier_code)
        console.print(f"\nThe catalogue is at {_short(catalogue.url_for_display)}", highlight=False, soft_wrap=True)


def _open_catalogue(settings: Settings) -> Catalogue:
    section, where = dict(settings.modules.get("harvest", {})), {"settings_folder": settings.settings_folder}
    module_settings = HarvestSettings.model_validate(section, context=where)
    return Catalogue.open(module_settings.catalogue_in(settings.data_folder))


def _show_enriched(
    console: Console, settings: Settings, result: Mapping[str, Any], tenant_id: str, supplier_code: str
) -> None:
    failed, enriched = int(result.get("failed", 0)), int(result.get("enriched", 0))
    console.print(f"\nEnriched: {enriched:,} products, {failed:,} failed", highlight=False)
    if not enriched and not failed:
        console.print("Nothing has changed since the last enrichment, so there was nothing to do.")
    if failed:
        console.print(result.get("last_error", ""), style="red", markup=False, highlight=False, soft_wrap=True)
    rows = list[tuple[str, ...]]()
    with _open_catalogue(settings) as catalogue:
        for row in catalogue.enriched(tenant_id, supplier_code, _SAMPLE_ROWS):
            color, material = ", ".join(row.colors), ", ".join(row.materials)
            rows.append((row.sku, row.category, color, row.size, material, row.brand, f"{row.completeness} %"))
    console.print()
    _print_table(console, ("sku", "category", "color", "size", "material", "brand", "complete"), rows)
    console.print()


def _show_rows(console: Console, catalogue: Catalogue, tenant_id: str, supplier_code: str) -> None:
    rows = list[tuple[str, ...]]()
    for row in catalogue.sample(tenant_id, supplier_code, _SAMPLE_ROWS):
        price = "" if row.price is None else f"{row.price} {row.currency_code}"
        stock = "" if row.stock is None else str(row.stock)
        rows.append((row.sku, row.title, row.brand, price, stock, row.publication))
    _print_table(console, ("sku", "title", "brand", "price", "stock", "publication"), rows)


def _print_table(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for line in table_lines(headers, rows, console.width if console.is_terminal else None):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_next(console: Console) -> None:
    console.print(
        "All processes are stopped. Next: keep everything running with\n\n"
        f"  {_short(sys.executable)} -m contextunity.worker dev\n\n"
        "and look at this harvest's history in Temporal's web UI, which it then serves at http://127.0.0.1:8233",
        highlight=False,
        soft_wrap=True,
    )


def _short(text: str) -> str:
    """Return a path relative to the current folder if it is below it."""
    return text.replace(f"sqlite:///{Path.cwd()}/", "").replace(f"{Path.cwd()}/", "")


if __name__ == "__main__":
    sys.exit(main())
