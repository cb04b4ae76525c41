"""The jail and the process that has it: nothing runs as root, and nothing outlives that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from process_jail import Jail, missing
from process_jail.scratch import ScratchRoot

_WORKER = """
import asyncio, sys
from pathlib import Path
import psutil
from process_jail import Jail, Limits, Program
async def main():
    jail = Jail(folder=Path(sys.argv[1]))
    await jail.start()
    running = asyncio.create_task(jail.run(Program(code="while True: pass", limits=Limits(wall=60, cpu=60))))
    while len(psutil.Process().children(recursive=True)) < 2:
        await asyncio.sleep(0.01)  # No event tells of another process's child.
    print("running", flush=True)
    await running
asyncio.run(main())
"""


@pytest.mark.parametrize(("uid", "gid"), [(0, 1), (1, 0), (-1, 1)])
def test_programs_do_not_run_as_root(uid: int, gid: int) -> None:
    with pytest.raises(ValueError, match="must not run as root"):
        Jail(uid=uid, gid=gid)


@pytest.mark.skipif(bool(missing(False, 65534)), reason=f"the jail needs {missing(False, 65534)}")
def test_nothing_outlives_a_killed_worker(tmp_path: Path) -> None:
    before = _scratch_folders(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "running\n"
        left = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGKILL)
    assert len(left) == 2
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []
    # Its scratch folder is what it leaves; the next worker finds it.
    made = _scratch_folders(tmp_path) - before
    ScratchRoot(tmp_path, (65534, 65534) if os.geteuid() == 0 else None, prefix="process-jail-").close()
    assert len(made & _scratch_folders(tmp_path)) < len(made)


def _scratch_folders(folder: Path) -> set[Path]:
    """Those in the places that a backend may choose."""
    return {path for place in (folder, Path(tempfile.gettempdir())) for path in place.glob("process-jail-*")}
