"""Input that is given whole: `--input` with JSON, a file, or the standard input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

from .connection import UsageError

__all__ = ["add_input", "read_input", "read_text"]


def add_input(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the option --input; `what` says what it is the input of."""
    parser.add_argument(
        "--input",
        metavar="JSON|FILE|-",
        help=f"{what}: a JSON object by proto names, a file that holds one, or - for the standard input",
    )


def read_input(given: str | None) -> dict[str, Any] | None:
    """The object that --input gives; None where it was not given.

    Raises:
        UsageError: it is no JSON object, or cannot be read.
    """
    if given is None:
        return None
    inline = given.lstrip().startswith("{")
    text = given if inline else read_text(given)
    where = "--input" if inline else "the standard input" if given == "-" else given
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f'{where}: it holds {type(data).__name__} where a JSON object is due, such as {{"key": 1}}')
    return cast("dict[str, Any]", data)


def read_text(name: str) -> str:
    """What a file holds, or the standard input for `-`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UsageError(f"{name}: {reason or error}") from None
