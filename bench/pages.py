"""How many feed entries a page of a harvest is best made of: wall time, memory and history for several sizes."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
from pathlib import Path

from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.settings import SupplierSettings

from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._rounds import interleave
from ._worker_harvest import WorkerHarvest, harvest_by_worker

__all__ = ["run"]

_SIZES = (50, 100, 250, 500, 1000)
_ROUNDS = 3
_ENTRIES = 10_000
_MIB = 1024 * 1024


def run(options: Options) -> Result:
    """Harvests the same feed with pages of each size in turn, everything fresh each time."""
    entries = 1_500 if options.quick else _ENTRIES
    usual = SupplierSettings(url="http://supplier").page_size
    feeds = options.folder / "feeds"
    write_sample(feeds / "feed.csv", products=entries)
    numbers = itertools.count()
    with Child("-m", "bench._feed_process", str(feeds), folder=options.folder, name="feed-server") as server:
        url = server.wait_for("serving").split()[1].rsplit("/", 1)[0] + "/feed.csv"
        subjects = {
            _name(size): functools.partial(_harvest, url, options.folder, numbers, size)
            for size in sorted({*_SIZES, usual})
        }
        found = interleave(options.rounds_or(_ROUNDS), subjects)
    case = f"harvest of {entries:,} feed entries"
    measurements = [
        Measurement(case=case, subject=name, quantity=quantity, unit=unit, values=tuple(values))
        for name, harvests in found.items()
        for quantity, unit, values in (
            ("wall", "s", [each.wall for each in harvests]),
            ("worker cpu", "s", [each.worker_cpu for each in harvests]),
            ("cpu of Temporal", "s", [each.temporal_cpu for each in harvests]),
            ("peak memory", "MiB", [each.peak_rss_bytes / _MIB for each in harvests]),
            ("events", "", [float(each.longest_history_events) for each in harvests]),
        )
    ]
    result = Result(
        title="harvest: how large a page",
        reference=_name(usual),
        measurements=tuple(measurements),
        notes=("a page is fetched, transformed and synced by an activity each, and up to four are under way at once",),
    )
    fastest = min(found, key=lambda name: result.find(case, name, "wall").median)
    ratio = result.ratio(case, _name(usual), fastest, "wall")
    goal = Goal(name=f"wall with the usual {_name(usual)} to the fastest, {fastest}", value=ratio, limit=1.1)
    return dataclasses.replace(result, goals=(goal,))


def _harvest(url: str, folder: Path, numbers: itertools.count[int], page_size: int) -> WorkerHarvest:
    return asyncio.run(harvest_by_worker(url, folder / f"harvest-{next(numbers)}", page_size=page_size))


def _name(page_size: int) -> str:
    return f"pages of {page_size:,}"
