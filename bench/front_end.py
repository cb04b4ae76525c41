"""StartWorkflow with an engine that answers at once, beside a bare grpc.aio echo of the same bytes with pb2."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json

from contextunity.core import ContextUnit, worker_pb2

from ._house import job_variables
from ._model import Goal, Measurement, Options, Result
from ._processes import Child, cpu_seconds
from ._rounds import interleave

__all__ = ["run"]

_OURS, _ECHO, _ECHO_UVLOOP = "StartWorkflow, engine stubbed", "grpc.aio echo with pb2", "the echo on uvloop"
_ROUNDS = 5
_CLIENTS = (1, 32)
_SECONDS = 1.5


def run(options: Options) -> Result:
    """Has one and many clients call both servers in turn."""
    folder, seconds = options.folder, 0.5 if options.quick else _SECONDS
    request = folder / "request.bin"
    request.write_bytes(_unit().to_protobuf(worker_pb2).SerializeToString())
    variables = job_variables()
    measurements: list[Measurement] = []
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(Child("-m", "bench._load", str(request), folder=folder, name="load"))
        load.wait_for("ready")
        servers = dict[str, tuple[Child, str]]()
        for subject, word in ((_OURS, "ours"), (_ECHO, "echo"), (_ECHO_UVLOOP, "echo_uvloop")):
            child = Child("-m", "bench._front_end", word, folder=folder, name=word, **variables)
            stack.enter_context(child)
            servers[subject] = child, child.wait_for("listens").split()[1]
        for clients in _CLIENTS:
            subjects = {
                name: functools.partial(_sample, load, child, target, clients, seconds)
                for name, (child, target) in servers.items()
            }
            for subject, found in interleave(options.rounds_or(_ROUNDS), subjects).items():
                for at, (quantity, unit) in enumerate((("p50", "ms"), ("throughput", "/s"), ("server cpu", "µs/call"))):
                    values = tuple(each[at] for each in found)
                    case = _case(clients)
                    measurements.append(
                        Measurement(case=case, subject=subject, quantity=quantity, unit=unit, values=values)
                    )
    result = Result(
        title="front end: StartWorkflow without Temporal",
        reference=_ECHO,
        measurements=tuple(measurements),
        notes=(
            "ours runs on uvloop, as its processes do; the echo on asyncio's loop, as grpc's examples, and on uvloop",
            "the clients are one process that sends raw bytes, on a channel each; the servers are processes too",
            "with many clients that process is busy as well, so server cpu tells more than throughput",
        ),
        facts={"request_bytes": request.stat().st_size},
    )
    goals = [
        Goal(name=f"{quantity}, {_case(clients)}", value=value, limit=limit, at_least=at_least)
        for clients in _CLIENTS
        for quantity, limit, at_least in (("p50", 1.4, False), ("throughput", 0.7, True))
        for value in [result.ratio(_case(clients), _OURS, _ECHO, quantity)]
    ]
    return dataclasses.replace(result, goals=tuple(goals))


def _sample(load: Child, server: Child, target: str, clients: int, seconds: float) -> tuple[float, float, float]:
    """Milliseconds of the middle call, calls a second, and microseconds of the server's processor time a call."""
    before = cpu_seconds(server.pid)
    load.tell(f"{target} {clients} {seconds}")
    answer = json.loads(load.wait_for("{"))
    used = cpu_seconds(server.pid) - before
    # Calls of the warm-up used processor time too.
    calls = answer["throughput"] * (seconds + 0.3)
    return answer["p50"] * 1e3, answer["throughput"], used / calls * 1e6


def _unit() -> ContextUnit:
    return ContextUnit(
        payload={"workflow_type": "bench_job", "name": "job-1", "tenant_id": "my_project", "count": 3},
        provenance=["commerce:trigger"],
    )


def _case(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"
