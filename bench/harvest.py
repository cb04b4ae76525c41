"""The harvest of a large feed by ContextWorker, beside a plain script that does the same work without Temporal."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.settings import SupplierSettings

from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._rounds import interleave
from ._worker_harvest import WorkerHarvest, harvest_by_worker

__all__ = ["run"]

_OURS, _PLAIN = "ContextWorker", "plain script"
_ROUNDS = 3
_VARIANTS_AN_ENTRY = 2.35
"""Of the sample feed. The catalogue has one product for each variant, and products are what is counted here."""
_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plain:
    wall: float
    products: int
    rejected: int
    pages: int
    peak_rss_bytes: int
    cpu: float


def run(options: Options) -> Result:
    """Harvests feeds of several sizes both ways, in turn, everything fresh each time."""
    sizes = sorted({max(1, options.products // 10), options.products})
    rounds = options.rounds_or(_ROUNDS)
    measurements = [m for size in sizes for m in _measure(options.folder, size, rounds)]
    if options.million:
        # Once: it takes minutes, and what it is to show is memory, which hardly varies.
        sizes.append(1_000_000)
        measurements += _measure(options.folder, 1_000_000, 1)
    result = Result(
        title="harvest: fetch over HTTP, parse, transform, upsert into SQLite",
        reference=_PLAIN,
        measurements=tuple(measurements),
        notes=(
            "wall runs from the call of StartWorkflow over gRPC to the workflow's result; everything is started before",
            "ContextWorker: Temporal server, gRPC service and one worker, a process each; the script: one process",
            "peak memory is that of the process that does the work; cpu is processor time, the Temporal server's apart",
        ),
        facts={"page_size": _page_size(), "sizes": sizes},
    )
    return dataclasses.replace(result, goals=_goals(result, sizes))


def _goals(result: Result, sizes: list[int]) -> tuple[Goal, ...]:
    usual = _case(max(size for size in sizes if size < 1_000_000 or len(sizes) < 3))
    small, large = _case(sizes[0]), _case(sizes[-1])
    memory = {case: result.find(case, _OURS, "peak memory").median for case in (small, large)}
    history = result.find(large, _OURS, "history").median
    wall = result.ratio(usual, _OURS, _PLAIN, "wall")
    return (
        Goal(name=f"wall of {_OURS} to {_PLAIN}, {usual}", value=wall, limit=2),
        Goal(name=f"peak memory of the worker, {large}", value=memory[large], limit=300, unit="MiB"),
        Goal(name=f"peak memory of the worker, {large} to {small}", value=memory[large] / memory[small], limit=1.25),
        Goal(name=f"largest history, {large}", value=history, limit=10, unit="MB"),
    )


def _measure(folder: Path, products: int, rounds: int) -> list[Measurement]:
    """Harvests one feed by both, `rounds` times."""
    feeds = folder / f"feeds-{products}"
    write_sample(feeds / "feed.csv", products=max(1, round(products / _VARIANTS_AN_ENTRY)))
    places = _places(folder, products)
    with Child("-m", "bench._feed_process", str(feeds), folder=folder, name="feed-server") as server:
        url = server.wait_for("serving").split()[1].rsplit("/", 1)[0] + "/feed.csv"
        subjects: dict[str, Callable[[], WorkerHarvest | _Plain]] = {
            _OURS: lambda: asyncio.run(harvest_by_worker(url, next(places))),
            _PLAIN: lambda: _harvest_plainly(url, next(places)),
        }
        found = interleave(rounds, subjects)
    ours = [value for value in found[_OURS] if isinstance(value, WorkerHarvest)]
    plain = [value for value in found[_PLAIN] if isinstance(value, _Plain)]
    counted = {(value.products, value.rejected, value.pages) for values in found.values() for value in values}
    if len(counted) != 1:
        raise RuntimeError(f"the harvests of one feed do not agree on (products, rejected, pages): {sorted(counted)}")
    return [*_of_ours(_case(products), ours), *_of_plain(_case(products), plain)]


def _harvest_plainly(url: str, folder: Path) -> _Plain:
    folder.mkdir()
    script = Child(
        "-m",
        "bench._plain_harvest",
        url,
        f"sqlite:///{folder / 'plain.db'}",
        str(_page_size()),
        folder=folder,
        name="script",
    )
    with script:
        script.wait_for("ready")
        cpu_before = script.cpu_seconds()
        began = time.perf_counter()
        script.tell("go")
        answer = json.loads(script.wait_for("{", timeout=None))
        wall = time.perf_counter() - began
        return _Plain(
            wall=wall,
            products=answer["created"],
            rejected=answer["rejected"],
            pages=answer["pages"],
            peak_rss_bytes=script.peak_rss_bytes(),
            cpu=script.cpu_seconds() - cpu_before,
        )


def _of_ours(case: str, found: list[WorkerHarvest]) -> list[Measurement]:
    measure = functools.partial(_measurement, case, _OURS)
    return [
        measure("wall", "s", [value.wall for value in found]),
        measure("products", "/s", [value.products / value.wall for value in found]),
        measure("peak memory", "MiB", [value.peak_rss_bytes / _MIB for value in found]),
        measure("cpu", "s", [value.worker_cpu for value in found]),
        measure("cpu of Temporal", "s", [value.temporal_cpu for value in found]),
        measure("runs", "", [value.runs for value in found]),
        measure("events", "", [value.longest_history_events for value in found]),
        measure("history", "MB", [value.largest_history_bytes / 1e6 for value in found]),
    ]


def _of_plain(case: str, found: list[_Plain]) -> list[Measurement]:
    measure = functools.partial(_measurement, case, _PLAIN)
    return [
        measure("wall", "s", [value.wall for value in found]),
        measure("products", "/s", [value.products / value.wall for value in found]),
        measure("peak memory", "MiB", [value.peak_rss_bytes / _MIB for value in found]),
        measure("cpu", "s", [value.cpu for value in found]),
    ]


def _measurement(case: str, subject: str, quantity: str, unit: str, values: Iterable[float]) -> Measurement:
    return Measurement(case=case, subject=subject, quantity=quantity, unit=unit, values=tuple(values))


def _case(products: int) -> str:
    return f"{products:,} products"


def _page_size() -> int:
    """Both read pages of the size that a supplier has unless its settings say otherwise."""
    return SupplierSettings(url="http://supplier").page_size


def _places(folder: Path, products: int) -> Iterator[Path]:
    """A new folder for each harvest."""
    return (folder / f"{products}-{number}" for number in itertools.count())
