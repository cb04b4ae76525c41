"""What load over HTTP does to calls over gRPC: one client's, alone and beside connections that call without a pause."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable

from contextunity.core import ContextUnit, worker_pb2
from contextunity.worker.embedded import usual_or_free_port

from ._house import job_variables
from ._model import Goal, Measurement, Options, Result
from ._processes import Child
from ._rounds import interleave

__all__ = ["run"]

_ALONE, _BESIDE = "gRPC alone", "gRPC beside HTTP"
_CASES = (4, 16, 64)
_ROUNDS = 5
_SECONDS = 1.5


def run(options: Options) -> Result:
    """Has one client call over gRPC, with and without load over HTTP, in turn."""
    folder, seconds = options.folder, 0.5 if options.quick else _SECONDS
    request = folder / "request.bin"
    unit = ContextUnit(
        payload={"workflow_type": "bench_job", "name": "job-1", "tenant_id": "my_project", "count": 3},
        provenance=["commerce:trigger"],
    )
    request.write_bytes(unit.to_protobuf(worker_pb2).SerializeToString())
    port = str(usual_or_free_port(0))
    measurements = list[Measurement]()
    with contextlib.ExitStack() as stack:
        start = functools.partial(_start, stack, options)
        load, http_load = (
            start("-m", "bench._load", str(request), name="load"),
            start("-m", "bench._http_load", name="http"),
        )
        variables = {**job_variables(), "WORKER_HTTP_PORT": port}
        server = Child("-m", "bench._front_end", "ours", folder=folder, name="ours", **variables)
        target = stack.enter_context(server).wait_for("listens").split()[1]
        alone = functools.partial(_alone, load, target, seconds)
        for connections in _CASES:
            beside = functools.partial(_beside, http_load, port, connections, alone)
            found = interleave(options.rounds_or(_ROUNDS), {_ALONE: alone, _BESIDE: beside})
            for subject, values in found.items():
                for at, (quantity, unit_of) in enumerate((("p50", "ms"), ("HTTP", "/s"))):
                    measurements.append(
                        Measurement(
                            case=_case(connections),
                            subject=subject,
                            quantity=quantity,
                            unit=unit_of,
                            values=tuple(value[at] for value in values),
                        )
                    )
    result = Result(
        title="calls over gRPC beside load over HTTP",
        reference=_ALONE,
        measurements=tuple(measurements),
        notes=(
            "the engine answers every start at once; the service, the client and the load are processes of their own",
            "on two processors the three of them share, so a part of the difference is the machine's",
        ),
    )
    goals = [
        Goal(name=f"p50, {_case(each)}", value=result.ratio(_case(each), _BESIDE, _ALONE, "p50"), limit=1.5)
        for each in _CASES
    ]
    return dataclasses.replace(result, goals=tuple(goals))


def _start(stack: contextlib.ExitStack, options: Options, *words: str, name: str) -> Child:
    child = stack.enter_context(Child(*words, folder=options.folder, name=name))
    child.wait_for("ready")
    return child


_Sample = tuple[float, float]
"""Milliseconds of the middle call over gRPC, and calls a second over HTTP."""


def _alone(load: Child, target: str, seconds: float) -> _Sample:
    load.tell(f"{target} 1 {seconds}")
    return float(json.loads(load.wait_for("{"))["p50"]) * 1e3, 0.0


def _beside(http_load: Child, port: str, connections: int, alone: Callable[[], _Sample]) -> _Sample:
    http_load.tell(f"{port} {connections}")
    p50, _ = alone()
    http_load.tell("enough")
    return p50, float(json.loads(http_load.wait_for("{"))["throughput"])


def _case(connections: int) -> str:
    return f"{connections} connections over HTTP"
