"""How soon the service serves and the command line answers, beside a bare grpc.aio server and a bare interpreter."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ._house import temporal_server
from ._model import Goal, Measurement, Options, Result
from ._processes import ROOT, Child
from ._rounds import interleave

__all__ = ["run"]

_SERVE, _HELP = "from the command to serving", "from the command to its end"
_OURS, _BARE = "python -m contextunity.worker", "bare grpc.aio server"
_CLI, _PASS = "contextworker --help", "python -c pass"
_ROUNDS = 7


def run(options: Options) -> Result:
    """Starts all of them in turn."""
    measurements = asyncio.run(_measure(options))
    result = Result(
        title="start-up",
        reference=_BARE,
        measurements=tuple(measurements),
        notes=("the Temporal server runs already; the service connects to it before it listens",),
    )
    serving, helping = result.find(_SERVE, _OURS, "wall").median, result.find(_HELP, _CLI, "wall").median
    return dataclasses.replace(
        result,
        goals=(
            Goal(name=f"{_OURS}, {_SERVE}", value=serving, limit=1.0, unit="s"),
            Goal(name=_CLI, value=helping, limit=0.2, unit="s"),
        ),
    )


async def _measure(options: Options) -> list[Measurement]:
    rounds = options.rounds_or(_ROUNDS)
    async with temporal_server(options.folder / "temporal") as temporal:
        ours = {"TEMPORAL_ADDRESS": temporal.address, "WORKER_HOST": "127.0.0.1", "WORKER_PORT": "0"}
        program = str(Path(sys.executable).parent / "contextworker")
        subjects: dict[tuple[str, str], Callable[[], float]] = {
            (_SERVE, _OURS): lambda: _until_it_listens(options.folder, "contextunity.worker", ours),
            (_SERVE, _BARE): lambda: _until_it_listens(options.folder, "bench._bare_server", {}),
            (_HELP, _CLI): lambda: _until_it_ends(options.folder, program, "--help"),
            (_HELP, _PASS): lambda: _until_it_ends(options.folder, sys.executable, "-c", "pass"),
        }
        found = await asyncio.to_thread(interleave, rounds, subjects)
    return [
        Measurement(case=case, subject=subject, quantity="wall", unit="s", values=tuple(values))
        for (case, subject), values in found.items()
    ]


def _until_it_listens(folder: Path, module: str, variables: dict[str, str]) -> float:
    began = time.perf_counter()
    with Child("-m", module, folder=folder, name="server", **variables) as child:
        child.wait_for("listens on")
        return time.perf_counter() - began


def _until_it_ends(folder: Path, *command: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return time.perf_counter() - began
