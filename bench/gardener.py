"""The enrichment of a large catalogue by ContextWorker, beside a plain loop over the same rows without Temporal."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contextunity.core import ContextUnit, worker_pb2
from contextunity.modules.harvest.sample import write_sample

from ._model import Goal, Measurement, Options, Result
from ._processes import Child, cpu_seconds
from ._rounds import interleave
from ._worker_harvest import histories_of, running_house

__all__ = ["run"]

_OURS, _PLAIN = "ContextWorker", "plain loop"
_ROUNDS = 3
_BATCH_SIZES = (50, 500)
"""What the contract has unless it is told otherwise, and what suits a large catalogue."""
_VARIANTS_AN_ENTRY = 2.35
_MIB = 1024 * 1024
_PAGE_SIZE = "500"
_LISTED_AT_ONCE = "5000"
"""Products that the loop lists and writes in one transaction: as many as the workflow, whatever its batch size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Took:
    wall: float
    enriched: int
    peak_rss_bytes: int
    cpu: float
    temporal_cpu: float = 0.0
    runs: int = 0
    events: int = 0
    history_bytes: int = 0


def run(options: Options) -> Result:
    """Harvests a feed once, and enriches copies of that catalogue both ways, in turn."""
    catalogue = _harvested(options.folder, options.products)
    cases = {batch_size: f"{options.products:,} products in batches of {batch_size}" for batch_size in _BATCH_SIZES}
    measurements = list[Measurement]()
    for batch_size, case in cases.items():
        measurements += _measure(options.folder, catalogue, case, batch_size, options.rounds_or(_ROUNDS))
    result = Result(
        title="gardener: list, enrich by rules, write beside the products in SQLite",
        reference=_PLAIN,
        measurements=tuple(measurements),
        notes=(
            "wall runs from the call of StartWorkflow over gRPC to the workflow's result; everything is started before",
            "ContextWorker: Temporal server, gRPC service and one worker, a process each; the loop: one process",
            "peak memory is that of the process that does the work; cpu is processor time, the Temporal server's apart",
        ),
        facts={"batch_sizes": list(_BATCH_SIZES), "products": options.products},
    )
    return dataclasses.replace(result, goals=tuple(goal for case in cases.values() for goal in _goals(result, case)))


def _goals(result: Result, case: str) -> tuple[Goal, ...]:
    memory, history = (result.find(case, _OURS, quantity).median for quantity in ("peak memory", "history"))
    return (
        Goal(name=f"wall of {_OURS} to {_PLAIN}, {case}", value=result.ratio(case, _OURS, _PLAIN, "wall"), limit=1.5),
        Goal(name=f"peak memory of the worker, {case}", value=memory, limit=300, unit="MiB"),
        Goal(name=f"largest history, {case}", value=history, limit=20, unit="MB"),
    )


def _harvested(folder: Path, products: int) -> Path:
    """A catalogue that was harvested, as a file to copy."""
    feeds, place = folder / "feeds", folder / "harvested"
    write_sample(feeds / "feed.csv", products=max(1, round(products / _VARIANTS_AN_ENTRY)))
    place.mkdir()
    path = place / "catalogue.db"
    with Child("-m", "bench._feed_process", str(feeds), folder=folder, name="feed-server") as server:
        url = server.wait_for("serving").split()[1].rsplit("/", 1)[0] + "/feed.csv"
        script = Child("-m", "bench._plain_harvest", url, f"sqlite:///{path}", _PAGE_SIZE, folder=place, name="harvest")
        with script:
            script.wait_for("ready")
            script.tell("go")
            script.wait_for("{", timeout=None)
            script.tell("end")
    # Copies are of this file alone, and the script may be gone before it has moved its last pages there.
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path


def _measure(folder: Path, catalogue: Path, case: str, batch_size: int, rounds: int) -> list[Measurement]:
    places = (folder / f"{batch_size}-{number}" for number in itertools.count())
    subjects: dict[str, Callable[[], _Took]] = {
        _OURS: lambda: asyncio.run(_enrich_by_worker(catalogue, next(places), batch_size)),
        _PLAIN: lambda: _enrich_plainly(catalogue, next(places)),
    }
    found = interleave(rounds, subjects)
    counted = {took.enriched for values in found.values() for took in values}
    if len(counted) != 1 or not next(iter(counted)):
        raise RuntimeError(f"the enrichments of one catalogue do not agree on their number: {sorted(counted)}")
    return [*_of_both(case, _OURS, found[_OURS]), *_of_ours(case, found[_OURS]), *_of_both(case, _PLAIN, found[_PLAIN])]


async def _enrich_by_worker(catalogue: Path, folder: Path, batch_size: int) -> _Took:
    _copy(catalogue, folder / ".contextworker" / "harvest" / "catalogue.db")
    async with running_house(folder, "http://nowhere.example/") as house:
        before = house.worker.cpu_seconds(), cpu_seconds(house.temporal.pid)
        began = time.perf_counter()
        payload = {
            "workflow_type": "enrich",
            "supplier_code": "supplier",
            "tenant_id": "bench",
            "batch_size": batch_size,
        }
        unit = ContextUnit(payload=payload, provenance=["bench:gardener"])
        answer = await house.stub.StartWorkflow(unit.to_protobuf(worker_pb2))
        handle = house.client.get_workflow_handle(str(answer.payload["workflow_id"]))
        result = await handle.result()
        wall = time.perf_counter() - began
        after = house.worker.cpu_seconds(), cpu_seconds(house.temporal.pid)
        histories = await histories_of(house.client, handle.id, str(answer.payload["run_id"]))
        if result.failed:
            raise RuntimeError(f"{result.failed} products were not enriched: {result.last_error}")
        return _Took(
            wall=wall,
            enriched=result.enriched,
            peak_rss_bytes=house.worker.peak_rss_bytes(),
            cpu=after[0] - before[0],
            temporal_cpu=after[1] - before[1],
            runs=len(histories),
            events=max(events for events, _ in histories),
            history_bytes=max(size for _, size in histories),
        )


def _enrich_plainly(catalogue: Path, folder: Path) -> _Took:
    path = folder / "catalogue.db"
    _copy(catalogue, path)
    loop = Child("-m", "bench._plain_enrich", f"sqlite:///{path}", _LISTED_AT_ONCE, folder=folder, name="loop")
    with loop:
        loop.wait_for("ready")
        before = loop.cpu_seconds()
        began = time.perf_counter()
        loop.tell("go")
        answer = json.loads(loop.wait_for("{", timeout=None))
        wall = time.perf_counter() - began
        took = _Took(
            wall=wall,
            enriched=answer["enriched"],
            peak_rss_bytes=loop.peak_rss_bytes(),
            cpu=loop.cpu_seconds() - before,
        )
        loop.tell("end")
        return took


def _copy(catalogue: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    shutil.copy(catalogue, target)


def _of_both(case: str, subject: str, found: list[_Took]) -> Iterator[Measurement]:
    measure = functools.partial(_measurement, case, subject)
    yield measure("wall", "s", (took.wall for took in found))
    yield measure("products", "/s", (took.enriched / took.wall for took in found))
    yield measure("peak memory", "MiB", (took.peak_rss_bytes / _MIB for took in found))
    yield measure("cpu", "s", (took.cpu for took in found))


def _of_ours(case: str, found: list[_Took]) -> Iterator[Measurement]:
    measure = functools.partial(_measurement, case, _OURS)
    yield measure("cpu of Temporal", "s", (took.temporal_cpu for took in found))
    yield measure("runs", "", (took.runs for took in found))
    yield measure("events", "", (took.events for took in found))
    yield measure("history", "MB", (took.history_bytes / 1e6 for took in found))


def _measurement(case: str, subject: str, quantity: str, unit: str, values: Iterable[float]) -> Measurement:
    return Measurement(case=case, subject=subject, quantity=quantity, unit=unit, values=tuple(values))
