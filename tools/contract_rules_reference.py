"""Writes docs/reference/contract-rules.md from the rules of `contextworker contract check`.

`python tools/contract_rules_reference.py` writes it; with `--check` it exits with 1 where the file is not what it would
write.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from contextunity.worker.contracts.report import reference

_FILE = Path(__file__).resolve().parent.parent / "docs/reference/contract-rules.md"


def main() -> int:
    """Writes the file, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the file is not up to date")
    arguments = parser.parse_args()
    text = reference()
    if arguments.check:
        if not _FILE.exists() or _FILE.read_text(encoding="utf-8") != text:
            print(f"{_FILE} is not what the rules give; commit what 'make generate' writes")
            return 1
        return 0
    _FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
