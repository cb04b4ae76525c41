"""Writes the client for threads, `client/_sync_client.py`, from the client for asyncio, `client/_async_client.py`.

Run as `python tools/sync_client.py`. `--check` writes nothing, and fails where the file is not what it would write.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_CLIENT = Path(__file__).parents[1] / "src/contextunity/worker/client"
_SOURCE = _CLIENT / "_async_client.py"
_TARGET = _CLIENT / "_sync_client.py"
_NOTE = "# Generated from _async_client.py by tools/sync_client.py. DO NOT EDIT.\n"

_REPLACED = [
    # Deadlines are ordinary parameters in a function that is not async.
    (r"  # noqa: ASYNC109[^\n]*", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\(await ((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)\.", r"\1."),
    (r"\bawait ", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bimport asyncio\b", "import time"),
    (r"\bgrpc\.aio\b", "grpc"),
    (r"\b_async_client\b", "_sync_client"),
    (r"\bcontextlib\.aclosing\b", "contextlib.closing"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\bAsync(Generator|Iterator)\b", r"\1"),
    (r"\bAsync(Calls|Connection)\b", r"Sync\1"),
    (r"\b(TaskHandle|WorkerClient)\b", r"Sync\1"),
    (r"\bfor asyncio\b", "for threads"),
]


def synchronous(text: str) -> str:
    """The client for threads that the client for asyncio stands for."""
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text)
    text = _NOTE + text
    ruff = str(Path(sys.executable).parent / "ruff")
    for arguments in (["check", "--fix", "--quiet", "--unsafe-fixes"], ["format", "--quiet"]):
        # What is left over of async forms, such as a loop that only yields, is ruff's to tidy.
        command = [ruff, *arguments, "--stdin-filename", str(_TARGET), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main(check: bool) -> int:
    """Writes or checks the file; the exit code."""
    text = synchronous(_SOURCE.read_text(encoding="utf-8"))
    if not check:
        _TARGET.write_text(text, encoding="utf-8")
    elif not _TARGET.is_file() or _TARGET.read_text(encoding="utf-8") != text:
        print("client/_sync_client.py is not what client/_async_client.py gives; run 'make generate'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--check"]))
