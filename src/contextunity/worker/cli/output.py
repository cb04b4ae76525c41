"""Output of commands: text on the standard output, JSON for programs, errors on the standard error."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "ago",
    "complain",
    "console",
    "did_you_mean",
    "escape_unprintable_output",
    "fail",
    "headline",
    "number_text",
    "print_json",
    "print_table",
    "printable",
    "say",
    "seconds_text",
    "table_lines",
    "value_text",
]

# C0 and C1 controls except tab and newline, DEL, and controls of the text direction.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LEAST_WIDTH = 12
"""Minimum width of a shortened column."""
_GAP = 2


def did_you_mean(word: str, known: Iterable[str], *, least: float = 0.6) -> str:
    """Return the end of an error about an unknown word: a suggestion, if a known word is similar.

    Args:
        word: the word that was typed.
        known: the known words.
        least: minimum similarity, from 0 to 1 (equal).
    """
    import difflib

    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=least)
    return f"; did you mean {near[0]}?" if near else ""


def escape_unprintable_output() -> None:
    """Write characters that the output's encoding lacks as escapes, because they would end the command."""
    for stream in (sys.stdout, sys.stderr):
        # Replacements in tests and notebooks may be of another class.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Return a text that is safe for terminals: control characters become escapes such as `\\x1b`."""
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def say(text: str) -> None:
    """Print lines to the standard output, without control characters."""
    print(printable(text), flush=True)  # noqa: T201 - what a command line is for


def complain(text: str) -> None:
    """Print an error to the standard error, without control characters."""
    print(f"contextworker: {printable(text)}", file=sys.stderr, flush=True)  # noqa: T201 - what a command line is for


def fail(arguments: Namespace, exit_code: int, message: str, *, text: str = "", **error: Any) -> int:
    """Report an error to the standard error, and return the exit code.

    Args:
        arguments: parsed arguments; with `json` the report is one JSON document.
        exit_code: exit code of the command.
        message: the error.
        text: longer text for people, if it differs from the message.
        error: further members of the JSON document, such as `code`.
    """
    if getattr(arguments, "json", False):
        data = {"error": {"message": message, "exit_code": exit_code, **error}}
        print(_json_text(data, sys.stderr), file=sys.stderr, flush=True)  # noqa: T201 - what a command line is for
    else:
        complain(text or message)
    return exit_code


def print_json(data: Any, *, pretty: bool | None = None, sort_keys: bool = True) -> None:
    """Print one JSON document.

    Args:
        data: plain data.
        pretty: indent it; None indents only on a terminal, so that programs get one line.
        sort_keys: sort the keys of objects.
    """
    indent = 2 if (sys.stdout.isatty() if pretty is None else pretty) else None
    print(_json_text(data, sys.stdout, indent, sort_keys), flush=True)  # noqa: T201 - what a command line is for


def _json_text(data: Any, stream: TextIO, indent: int | None = None, sort_keys: bool = True) -> str:
    text = json.dumps(data, ensure_ascii=False, indent=indent, sort_keys=sort_keys)
    # JSON allows some control characters in texts; escape them, because a terminal would act on them.
    text = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        # Replacements of the stream in tests and notebooks may have no encoding.
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        # The stream's own escapes, such as \xfc, are invalid in JSON.
        return json.dumps(data, indent=indent, sort_keys=sort_keys)
    return text


def console() -> Console:
    """Return a console for output that changes in place; lines are not shortened if it is not a terminal."""
    from rich.console import Console

    made = Console(highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made = Console(highlight=False, soft_wrap=True, width=200)
    return made


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as the terminal; see `table_lines`. Without a terminal, nothing is shortened."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(headers, rows, width):
        say(line)


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table whose first column, the id, is never shortened.

    If it is too wide, the widest other columns are shortened. If that is not enough, each row takes two lines: the id,
    and the other cells below it.

    Args:
        headers: names of the columns.
        rows: their cells, as many as headers.
        width: maximum characters of a line; None for no limit.
    """
    from rich.cells import cell_len, set_cell_size

    table = [list(headers), *([printable(" ".join(cell.split())) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    room = sys.maxsize if width is None else width - _GAP * (len(widths) - 1)
    while sum(widths) > room:
        widest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        if widest == 0 or widths[widest] <= _LEAST_WIDTH:
            # Omit the header, which would not match the lines.
            return [line for row in table[1:] for line in (row[0], f"  {'  '.join(filter(None, row[1:]))}")]
        widths[widest] -= min(sum(widths) - room, widths[widest] - _LEAST_WIDTH, 8)

    def cell(text: str, size: int) -> str:
        return set_cell_size(text, size) if cell_len(text) <= size else f"{set_cell_size(text, size - 1)}…"

    return [(" " * _GAP).join(map(cell, row, widths)).rstrip() for row in table]


def value_text(value: Any) -> str:
    """Return a plain value on one line: numbers with separators, texts unchanged, other values as JSON."""
    if isinstance(value, str):
        return number_text(value)
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=False)
    return number_text(value)


def number_text(value: Any) -> str:
    """Return a number, or ProtoJSON's text of one, with separators; other texts unchanged."""
    text = str(value)
    if isinstance(value, int) or (isinstance(value, str) and text.removeprefix("-").isascii() and _is_int(text)):
        return f"{int(text):,}"
    return f"{value:,.6g}" if isinstance(value, float) else text


def _is_int(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdigit() and (digits == "0" or not digits.startswith("0"))


def ago(moment: datetime | None) -> str:
    """Return the age of a time, such as `3m ago`; empty for None."""
    return "" if moment is None else f"{seconds_text(datetime.now(UTC) - moment)} ago"


def seconds_text(span: timedelta) -> str:
    """Return a duration in its two largest units, such as `2h 05m`."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, size, smaller, divisor in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit} {seconds % size // divisor:02d}{smaller}"
    return f"{seconds}s"


def headline(text: str) -> str:
    """Return the first sentence of a description on one line."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return sentence + dot.rstrip()
