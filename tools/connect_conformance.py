"""Runs Connect's conformance tests on the calls of the HTTP listener: `python tools/connect_conformance.py`.

The runner and its protos come from a Go module, so Go has to be there; without it nothing is run, and a word says so.

0: all tests pass, or the runner cannot be had. 1: a test fails.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BUILD = _ROOT / ".build" / "connect_conformance"
_TESTS = _ROOT / "tests" / "conformance"
_MODULE, _VERSION = "connectrpc.com/conformance", "v1.0.7"
_PROTOS = tuple(f"connectrpc/conformance/v1/{name}.proto" for name in ("config", "server_compat", "service"))
_TREE = "connect_tree"
_LEAST = 500
"""Tests that pass at least: a runner that asks nothing finds nothing."""


def main() -> int:
    if shutil.which("go") is None:
        print("connect conformance: SKIPPED, there is no Go to build its runner with")
        return 0
    _BUILD.mkdir(parents=True, exist_ok=True)
    runner = _BUILD / "bin" / "connectconformance"
    if not runner.exists():
        _go("install", f"{_MODULE}/cmd/connectconformance@{_VERSION}", GOBIN=str(runner.parent))
    protos = Path(_go("env", "GOMODCACHE").strip()) / f"{_MODULE}@{_VERSION}" / "proto"
    testee = _BUILD / "testee"
    testee.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_TESTS / "connect_testee.py"}" "{_generate(protos)}"\n')
    testee.chmod(testee.stat().st_mode | stat.S_IXUSR)
    command = [str(runner), "--mode", "server", "--conf", str(_TESTS / "connect.yaml"), "--", str(testee)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
    )
    (_BUILD / "output.txt").write_text(done.stdout)
    passed = re.search(r"^(\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    if done.returncode or passed is None or int(passed[1]) < _LEAST:
        print(done.stdout)
        print("connect conformance: FAILED; what failed is above, and in .build/connect_conformance/output.txt")
        return 1
    print(f"connect conformance: {passed[0]}")
    return 0


def _generate(protos: Path) -> Path:
    """Generates the runner's protos with our own plugin, as any project generates its own; returns the folder."""
    out = _BUILD / "generated" / _TREE
    shutil.rmtree(out.parent, ignore_errors=True)
    out.mkdir(parents=True)
    plugin = Path(sys.executable).parent / "protoc-gen-python_messages"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
    command += [f"--plugin=protoc-gen-python_messages={plugin}", f"--python_messages_out={out}"]
    subprocess.run([*command, f"--python_messages_opt=package={_TREE}", *_PROTOS], check=True, timeout=300)
    return out.parent


def _go(*words: str, **variables: str) -> str:
    done = subprocess.run(
        ["go", *words], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
