"""How many files a call enters: a reader who follows one must not get lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contextunity.worker.embedded import EmbeddedServer

_ROOT = Path(__file__).resolve().parents[3]

_PROGRAM = """
import asyncio, json, sys
import grpc
from contextunity.core import ContextUnit, worker_pb2
from contextunity.worker.auth import authenticator_for
from contextunity.worker.modules.discovery import boot
from contextunity.worker.quotas import Quotas
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.temporal import connect

entered = set()

def enter(frame, event, _):
    # Health follows Temporal in a task of its own, whatever is called.
    if event == "call" and not frame.f_code.co_filename.endswith("readiness.py"):
        entered.add(frame.f_code.co_filename)

async def main(address):
    settings, registry = boot()
    service = WorkerService(await connect(settings, address=address), registry, quotas=Quotas(settings.quotas))
    files = {}
    async with (
        running_server(service, settings, authenticator_for(settings)) as server,
        grpc.aio.insecure_channel(f"{server.host}:{server.port}") as channel,
    ):
        async def call(name, **payload):
            unit = ContextUnit(payload=payload).to_protobuf(worker_pb2).SerializeToString()
            method = channel.unary_unary(f"/contextunity.worker.WorkerService/{name}")
            return ContextUnit.from_protobuf(worker_pb2.ContextUnit.FromString(await traced(method, unit)))

        async def traced(method, unit):
            entered.clear()
            sys.setprofile(enter)
            try:
                return await method(unit)
            finally:
                sys.setprofile(None)

        for number in range(2):
            payload = {"workflow_type": "harvest", "supplier_code": "camping-trade", "tenant_id": f"path-{number}"}
            started = await call("StartWorkflow", **payload)
        files["StartWorkflow"] = sorted(entered)
        for _ in range(2):
            await call("GetTaskStatus", workflow_id=started.payload["workflow_id"])
        files["GetTaskStatus"] = sorted(entered)
        await call("TerminateTask", workflow_id=started.payload["workflow_id"])
    print(json.dumps(files))

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def entered(temporal_server: EmbeddedServer) -> dict[str, set[str]]:
    """The files of ours that the second call of each method enters, from its bytes to the answer's."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, temporal_server.address],
        capture_output=True,
        text=True,
        timeout=60,
        env={"WORKER_HOST": "127.0.0.1", "WORKER_PORT": "0", "PATH": "/usr/bin:/bin"},
        cwd=_ROOT,
    )
    assert done.returncode == 0, done.stderr
    return {
        method: {_file(Path(name)) for name in names if _is_ours(Path(name))}
        for method, names in json.loads(done.stdout.splitlines()[-1]).items()
    }


def _is_ours(path: Path) -> bool:
    return any(path.is_relative_to(_ROOT / folder) for folder in ("src", "gen"))


def _file(path: Path) -> str:
    name = path.relative_to(_ROOT).as_posix()
    # The codec is read as a whole, or not at all.
    return "codec" if "codec/" in name or name.endswith("exact_datetime.py") else name


@pytest.mark.parametrize("method", ["StartWorkflow", "GetTaskStatus"])
def test_a_call_enters_few_files(entered: dict[str, set[str]], method: str) -> None:
    files = entered[method]
    assert "src/contextunity/worker/boundary.py" in files
    assert len(files) <= 14, "\n".join(sorted(files))
    assert len([name for name in files if "/service/" in name]) <= 4, sorted(files)
