"""Processes that a benchmark measures: started, watched and surely ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

import psutil

__all__ = ["Child", "cpu_seconds", "peak_rss_bytes"]

ROOT = Path(__file__).resolve().parents[1]
_LINE_TIMEOUT = 120.0
_STOP_TIMEOUT = 30.0
_SAMPLE_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


class Child:
    """`python ARGUMENTS` with standard input and output at hand, while it is entered with `with`."""

    def __init__(self, *arguments: str, folder: Path, name: str, **variables: str) -> None:
        """Say what to run.

        Args:
            arguments: behind `python`.
            folder: its current folder; standard error goes to NAME.log there.
            name: for people.
            variables: of its environment, beside those of ours that no program of this project reads.
        """
        self.name = name
        self._arguments = arguments
        self._folder = folder
        self._variables = variables
        self._log = folder / f"{name}.log"

    def __enter__(self) -> Child:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CONTEXTWORKER_", "WORKER_", "TEMPORAL_"))
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=self._folder,
                env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self._variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C reaches the whole foreground group; ours are ended in order instead.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._sampler = _PeakSampler(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampler.stop()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            return

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        """Writes a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait_for(self, text: str, timeout: float | None = _LINE_TIMEOUT) -> str:
        """Gives the first line of its output with the text in it.

        Raises:
            RuntimeError: the process ended without one; its log's end is in the message.
        """
        assert self._process.stdout is not None
        # Reading has no timeout of its own; a process that says nothing for so long is ended, and so its output.
        alarm = threading.Timer(timeout, self._process.kill) if timeout is not None else None
        if alarm is not None:
            alarm.start()
        try:
            for line in self._process.stdout:
                if text in line:
                    return line
        finally:
            if alarm is not None:
                alarm.cancel()
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"the {self.name} ended, or said nothing of {text!r}; its log ends with:\n{tail}")

    def peak_rss_bytes(self) -> int:
        """The most memory that it had resident so far."""
        return peak_rss_bytes(self.pid) or self._sampler.peak

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far."""
        return cpu_seconds(self.pid)


class _PeakSampler:
    """Watches the memory of a process where the kernel keeps no peak of it."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._ended = threading.Event()
        if peak_rss_bytes(pid) == 0:
            threading.Thread(target=self._sample, args=(psutil.Process(pid),), daemon=True).start()

    def _sample(self, process: psutil.Process) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            try:
                self.peak = max(self.peak, process.memory_info().rss)
            except psutil.Error:
                return

    def stop(self) -> None:
        self._ended.set()


def peak_rss_bytes(pid: int) -> int:
    """The kernel's own high-water mark of a process's memory; 0 where it keeps none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, in user mode and in the kernel."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _die_with_parent() -> None:
    """Asks Linux to end the process with this one, however this one ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
