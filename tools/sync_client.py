"""Writes the client for threads, `client/_sync/`, from the client for asyncio, `client/_async/`.

Run as `python tools/sync_client.py`. `--check` writes nothing, and fails where a file is not what it would write.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_CLIENT = Path(__file__).parents[1] / "src/contextunity/worker/client"
_NOTE = "# Generated from ../_async/{name} by tools/sync_client.py. DO NOT EDIT.\n"

_REPLACED = [
    # Deadlines are ordinary parameters in a function that is not async.
    (r"  # noqa: ASYNC109[^\n]*", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\(await ((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)\.", r"\1."),
    (r"\bawait ", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bimport asyncio\b", "import time"),
    (r"\bgrpc\.aio\b", "grpc"),
    (r"\bcontextlib\.aclosing\b", "contextlib.closing"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\bAsync(Generator|Iterator)\b", r"\1"),
    (r"\bAsync(Calls|Connection)\b", r"Sync\1"),
    (r"\b(TaskHandle|WorkerClient)\b", r"Sync\1"),
    (r"\bfor asyncio\b", "for threads"),
]


def synchronous(text: str, name: str) -> str:
    """The file of the client for threads that a file of the client for asyncio stands for."""
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text)
    text = _NOTE.format(name=name) + text
    ruff = str(Path(sys.executable).parent / "ruff")
    for arguments in (["check", "--fix", "--quiet", "--unsafe-fixes"], ["format", "--quiet"]):
        # What is left over of async forms, such as a loop that only yields, is ruff's to tidy.
        command = [ruff, *arguments, "--stdin-filename", str(_CLIENT / "_sync" / name), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main(check: bool) -> int:
    """Writes or checks all files; the exit code."""
    stale = list[str]()
    for source in sorted((_CLIENT / "_async").glob("*.py")):
        target = _CLIENT / "_sync" / source.name
        text = synchronous(source.read_text(encoding="utf-8"), source.name)
        if check and (not target.is_file() or target.read_text(encoding="utf-8") != text):
            stale.append(f"client/_sync/{source.name}")
        elif not check:
            target.write_text(text, encoding="utf-8")
    if stale:
        print(f"not what client/_async/ gives; run 'make generate': {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--check"]))
