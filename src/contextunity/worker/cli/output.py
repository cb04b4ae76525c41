"""What commands print: for people on the standard output, for programs as JSON, mistakes on the standard error."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ago", "complain", "console", "headline", "number_text", "print_json", "say", "seconds_text", "value_text"]


def say(text: str) -> None:
    """Prints a line for people or programs."""
    print(text, flush=True)  # noqa: T201 - what a command line is for


def complain(text: str) -> None:
    """Prints what is wrong, on the standard error."""
    print(f"contextworker: {text}", file=sys.stderr, flush=True)  # noqa: T201 - what a command line is for


def print_json(data: Any, *, pretty: bool | None = None) -> None:
    """Prints one JSON document.

    Args:
        data: JSON-like.
        pretty: over several lines; where None, so on a terminal alone, so that programs get one line.
    """
    indent = 2 if (sys.stdout.isatty() if pretty is None else pretty) else None
    say(json.dumps(data, ensure_ascii=False, indent=indent, sort_keys=True))


def console() -> Console:
    """A console for tables; lines are as long as they are where nobody looks at them."""
    from rich.console import Console

    made = Console(highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made = Console(highlight=False, soft_wrap=True, width=200)
    return made


def value_text(value: Any) -> str:
    """A plain value on one line: numbers with separators, texts as they are, the rest as JSON."""
    if isinstance(value, str):
        return number_text(value)
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=False)
    return number_text(value)


def number_text(value: Any) -> str:
    """A number, also one that ProtoJSON gives as text, with separators; other texts as they are."""
    text = str(value)
    if isinstance(value, int) or (isinstance(value, str) and text.removeprefix("-").isascii() and _is_int(text)):
        return f"{int(text):,}"
    return f"{value:,.6g}" if isinstance(value, float) else text


def _is_int(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdigit() and (digits == "0" or not digits.startswith("0"))


def ago(moment: datetime | None) -> str:
    """How long ago a moment was, such as `3m ago`; empty for None."""
    return "" if moment is None else f"{seconds_text(datetime.now(UTC) - moment)} ago"


def seconds_text(span: timedelta) -> str:
    """A span in its two largest units, such as `2h 05m`."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, size, smaller, divisor in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit} {seconds % size // divisor:02d}{smaller}"
    return f"{seconds}s"


def headline(text: str) -> str:
    """The first sentence of a description, on one line."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return sentence + dot.rstrip()
