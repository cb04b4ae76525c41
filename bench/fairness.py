"""What one tenant waits for, alone and while another floods the same service and worker with all that there is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import math
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.core.tokens import ContextToken, mint
from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.sample import write_sample

from ._house import job_variables, service_of, temporal_server
from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._tree import generated_tree

__all__ = ["run"]

_ALONE, _WAITING, _STEADY, _ALL = "alone", "beside what waits", "beside 10 starts/s", "beside the flood"
_FLOODS = {_WAITING: "program,watch", _STEADY: "steady", _ALL: "start,program,watch,big"}
_SLOW_FEEDS = 16
_ROUNDS = 60
_REFILL = 10.0
"""Seconds in which a tenant that has used up its burst of starts has all of it again."""
_EVERY = 0.5
"""Seconds from the begin of a round to that of the next, at least: the tenant stays within its own quota of starts."""
_LIMIT = 30.0
"""Seconds that a call may take; one that takes longer counts as so long."""
_SUPPLIER = '[modules.harvest.suppliers.slow-{number}]\nurl = "{url}"\n'
_SECRET = "a secret of a benchmark, which keeps nothing from anybody"
_GUARDED = {"CONTEXTWORKER_AUTH": "token", "CONTEXTWORKER_TOKEN_SECRET": _SECRET}
"""Quotas are those of tenants that are known, so callers show tokens."""
_Call = Callable[[], Awaitable[None]]


def run(options: Options) -> Result:
    """Measures a tenant's calls alone, then beside the flood, in the same processes."""
    rounds = 5 if options.quick else _ROUNDS
    found, flood = asyncio.run(_measure(options, rounds))
    measurements = [
        Measurement(case=case, subject=subject, quantity=quantity, unit="ms", values=(value,))
        for (case, subject), values in found.items()
        for quantity, value in (("p50", statistics.median(values)), ("p95", _p95(values)), ("longest", max(values)))
    ]
    result = Result(
        title="fairness: one tenant's calls, alone and while another floods",
        reference=_ALONE,
        measurements=tuple(measurements),
        notes=(
            "one service and one worker for both tenants, with the quotas that hold unless others are set",
            "the flood comes from a process of its own, on a machine that all of it shares",
            f"{_WAITING}: 50 programs and 50 watches at once, harvests of {_SLOW_FEEDS} feeds of 1 byte a second",
            f"{_STEADY}: a tenant within its quotas, with slow feeds too: no flood can be cheaper than that",
            f"{_ALL}: what waits, 8 callers that start workflows, and 2 that send units of 4 MB",
            f"{rounds} rounds from the flood's first moment on, each with one call of each kind, one after the other; "
            f"a call that takes longer than {_LIMIT:.0f} s is given up and counts as so long",
        ),
        facts={"flood": flood},
    )
    goals = [
        Goal(
            name=f"{quantity}, {case}: {subject} to {_ALONE}",
            value=result.ratio(case, subject, _ALONE, quantity),
            limit=2,
        )
        for case in dict.fromkeys(case for case, _ in found)
        for subject in (_WAITING, _ALL)
        for quantity in ("p50", "p95")
    ]
    return dataclasses.replace(result, goals=tuple(goals))


def _p95(values: list[float]) -> float:
    """The value that 95 of 100 do not exceed; with few values the largest."""
    return sorted(values)[math.ceil(len(values) * 0.95) - 1]


async def _measure(
    options: Options, rounds: int
) -> tuple[dict[tuple[str, str], list[float]], dict[str, dict[str, int]]]:
    generated_tree()
    feed = options.folder / "slow.csv"
    write_sample(feed, products=50)
    found = dict[tuple[str, str], list[float]]()
    with FeedServer(feed, bytes_per_second=1) as slow:
        suppliers = "".join(_SUPPLIER.format(number=number, url=slow.url()) for number in range(_SLOW_FEEDS))
        (options.folder / "contextworker.toml").write_text(f"[modules.harvest]\nsample_products = 60\n{suppliers}")
        async with _deployed(options) as target, grpc.aio.insecure_channel(target) as channel:
            calls = await _calls(worker_pb2_grpc.WorkerServiceStub(channel))
            for call in calls.values():
                await call()
            await _sample(found, _ALONE, calls, rounds)
            told = dict[str, dict[str, int]]()
            arguments = ("-m", "bench._flood", target, "flooding", str(_SLOW_FEEDS))
            for subject, kinds in _FLOODS.items():
                if told:
                    await asyncio.sleep(_REFILL)
                variables = {**job_variables(), "CONTEXTWORKER_TOKEN": _token("flooding")}
                child = Child(*arguments, kinds, folder=options.folder, name=f"flood-{kinds}", **variables)
                with child as flood:
                    flood.wait_for("floods")
                    await _sample(found, subject, calls, rounds)
                    flood.tell("enough")
                    told[subject] = json.loads(flood.wait_for("{"))
    return found, told


@contextlib.asynccontextmanager
async def _deployed(options: Options) -> AsyncGenerator[str, None]:
    """A Temporal server, a service and a worker with all modules; gives the service's address."""
    async with temporal_server(options.folder / "temporal") as temporal:
        variables = {**job_variables(), "TEMPORAL_ADDRESS": temporal.address}
        worker = Child("-m", "contextunity.worker", "--temporal", folder=options.folder, name="worker", **variables)
        with service_of(options, temporal, **_GUARDED) as service, worker:
            worker.wait_for("Temporal workers run")
            yield service.wait_for("listens on").split("listens on ")[1].split(",")[0]


def _token(tenant: str) -> str:
    permissions = ("worker:execute", "worker:read")
    token = ContextToken(token_id=tenant, permissions=permissions, allowed_tenants=(tenant,))
    return mint(token, kid="bench:hmac-001", secret=_SECRET.encode())


async def _calls(stub: worker_pb2_grpc.WorkerServiceAsyncStub) -> dict[str, _Call]:
    numbers = itertools.count()
    shown = (("authorization", f"Bearer {_token('bench')}"),)

    def unit(**payload: Any) -> Any:
        return ContextUnit(payload={"tenant_id": "bench", **payload}, provenance=["bench:fairness"]).to_protobuf(
            worker_pb2
        )

    async def start(**payload: object) -> str:
        return str((await stub.StartWorkflow(unit(**payload), metadata=shown)).payload["workflow_id"])

    # It waits for ever.
    idle = await start(workflow_type="bench_job", name="watched", wait=True)

    async def start_job() -> None:
        await start(workflow_type="bench_job", name=f"job-{next(numbers)}")

    async def status() -> None:
        await stub.GetTaskStatus(unit(workflow_id=idle), metadata=shown)

    async def watch() -> None:
        stream = stub.WatchTask(unit(workflow_id=idle), metadata=shown)
        await anext(aiter(stream))
        stream.cancel()

    async def code() -> None:
        await stub.ExecuteCode(unit(code="1+1"), metadata=shown)

    async def harvest() -> None:
        workflow_id = await start(workflow_type="harvest", supplier_code="camping-trade", force=True)
        async for _ in stub.WatchTask(unit(workflow_id=workflow_id), metadata=shown):
            pass

    return {
        "StartWorkflow": start_job,
        "GetTaskStatus": status,
        "WatchTask, first message": watch,
        "ExecuteCode 1+1": code,
        "harvest of 60 products": harvest,
    }


async def _sample(
    found: dict[tuple[str, str], list[float]], subject: str, calls: dict[str, _Call], rounds: int
) -> None:
    """Time the calls in turns, so that each kind meets all moments of the flood."""
    for _ in range(rounds):
        next_round = time.perf_counter() + _EVERY
        for case, call in calls.items():
            began = time.perf_counter()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LIMIT):
                    await call()
            found.setdefault((case, subject), []).append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(max(0.0, next_round - time.perf_counter()))
