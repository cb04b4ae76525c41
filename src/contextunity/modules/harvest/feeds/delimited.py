"""Split the bytes of a CSV or TSV feed into records, with the exact offset and line of each.

The csv module reads valid records. A record with a stray quote, or one that extends over lines that look like rows, is
read again by hand: a quote that opens a value is part of the value, unless it is closed at a possible end of the value
and no line in between is a row.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import methodcaller
from typing import TypeAlias

from ..rejects import RejectReason, WarningReason
from .encoding import RowWarning, decode_lines, encoding_warning
from .model import MAX_ENTRY_BYTES

# The csv module's limit is 128 KiB per value, for the whole process. When it is exceeded, the module loses its place in
# the record, and would read the rest of a long description as rows. Our own limit of an entry replaces it, so only
# raise this one.
csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_ENTRY_BYTES))

IsRow: TypeAlias = Callable[[Sequence[str]], bool]
"""Returns whether a line is a row, from its values, one per column of the header."""

_STRAY_QUOTE = "a value of the row begins with a quote that is never closed; the quote is read as part of the value"


@dataclass(slots=True)
class Record:
    """One record of a delimited feed."""

    start: int
    """Offset of the record in the given bytes."""
    end: int
    """Offset of the next record."""
    line: int
    """Lines before it in the given bytes."""
    fields: list[str]
    """Its values."""
    reject_reason: RejectReason | None = None
    """Why the record is rejected."""
    detail: str = ""
    """The same for people."""
    warnings: tuple[RowWarning, ...] = ()
    """What is wrong with a record that can be used."""


def split_records(
    data: bytes,
    *,
    delimiter: str,
    columns: int,
    final: bool,
    encoding: str = "",
    is_row: IsRow | None = None,
) -> Iterator[Record]:
    """Split bytes into records, without blank lines.

    Args:
        data: bytes that begin with a record.
        delimiter: separator of values.
        columns: number of values of a valid record.
        final: whether the feed ends with `data`; otherwise an incomplete record at the end is not read.
        encoding: see `decode_lines`.
        is_row: returns whether a line is a row, which no quoted value may contain.

    The records never depend on where `data` ends.
    """
    lines = data.splitlines(keepends=True)
    # A carriage return at the very end may be half of a line end.
    if lines and not final and not lines[-1].endswith(b"\n"):
        lines.pop()
    ends = [0, *accumulate(map(len, lines))]
    splitter = _Splitter(lines, encoding, delimiter, columns, is_row)
    decode = methodcaller("decode", encoding) if encoding else bytes.decode
    separator, least = delimiter.encode(), columns - 1
    has_nul = b"\0" in data
    index, count = 0, len(lines)
    fields, after = list[str](), 0
    while index < count:
        begin = index
        texts = map(decode, map(lines.__getitem__, range(begin, count)))
        reader = csv.reader(texts, delimiter=delimiter, strict=True)
        while index < count:
            stray, restart = False, False
            try:
                fields = next(reader)
                after = begin + reader.line_num
                if after - index > 1 and is_row is not None:
                    first, last = ends[index + 1], ends[after - 1]
                    # Quick check: a row has as many separators as any other. The last line of a quoted value has the
                    # values after it, so often as many separators; it is a row only if the first line is.
                    restart = data.count(separator, first, last) >= least or (
                        data.count(separator, ends[index], first) >= least
                        and data.count(separator, last, ends[after]) >= least
                    )
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError):
                restart = True
            if restart:
                found = splitter.read(index)
                if found is None:
                    # A quote is open at the end of the bytes.
                    if not final:
                        return
                    after = splitter.next_row(index)
                    detail = "a quoted value is not closed before the end of the feed"
                    yield Record(ends[index], ends[after], index, [], RejectReason.UNCLOSED_QUOTE, detail)
                    index = after
                    break
                fields, after, stray = found
            if fields:
                record = Record(ends[index], ends[after], index, fields)
                if len(fields) != columns:
                    record.reject_reason = RejectReason.COLUMN_COUNT
                    record.detail = f"the row has {len(fields)} values, the header has {columns} columns"
                if has_nul and b"\0" in data[record.start : record.end]:
                    record.reject_reason, record.detail = RejectReason.NUL_BYTE, "the row has a NUL character"
                if restart:
                    record.warnings = splitter.warnings(index, after, stray=stray)
                yield record
            index = after
            if restart:
                break


class _Splitter:
    """Reads single records by hand if the csv module would lose rows, or bytes are invalid."""

    def __init__(self, lines: list[bytes], encoding: str, delimiter: str, columns: int, is_row: IsRow | None) -> None:
        self._lines = lines
        self._encoding = encoding
        self._delimiter = delimiter
        self._columns = columns
        self._is_row = is_row
        self._damaged: set[int] = set()

    def _text(self, index: int) -> str:
        (text,), damage = decode_lines(self._lines[index : index + 1], self._encoding)
        if damage is not None:
            self._damaged.add(index)
        return text

    def warnings(self, first: int, after: int, *, stray: bool) -> tuple[RowWarning, ...]:
        """Return the warnings about a record that was read by hand."""
        damaged = not self._damaged.isdisjoint(range(first, after))
        return (*((WarningReason.STRAY_QUOTE, _STRAY_QUOTE),) * stray, *(encoding_warning(self._encoding),) * damaged)

    def next_row(self, first: int) -> int:
        """Return where reading can continue after a record whose quote is never closed."""
        for index in range(first + 1, len(self._lines)):
            text = self._text(index)
            if text.count(self._delimiter) >= self._columns - 1 and len(self._values(text)) == self._columns:
                return index
        return len(self._lines)

    def read(self, first: int) -> tuple[list[str], int, bool] | None:
        """Read the record that begins on a line.

        Returns:
            Its values, the line after it, and whether it has a stray quote; None if a quote is open to the end.
        """
        delimiter, count = self._delimiter, len(self._lines)
        opening = f'{delimiter}"'
        text, last, at, stray = self._text(first), first, 0, False
        stop = len(text.rstrip("\r\n"))
        fields: list[str] = []
        while True:
            if text.startswith('"', at):
                grown, line, place = text, last, at + 1
                swallows = False
                while (close := _closing(grown, place)) < 0:
                    place, line = len(grown), line + 1
                    if line == count:
                        return None
                    further = self._text(line)
                    if '"' not in further and self._stands_alone(further):
                        swallows = True
                        break
                    grown += further
                if not swallows and _ends_value(grown, close, delimiter) and not self._are_rows(last, line):
                    fields.append(grown[at + 1 : close].replace('""', '"'))
                    text, last, at = grown, line, close + 1
                    stop = len(text.rstrip("\r\n"))
                else:
                    stray = True
                    at = _literal(fields, text, at, stop, delimiter)
            else:
                # All values up to the next that begins with a quote.
                end = text.find(opening, at, stop)
                end = stop if end < 0 else end
                fields += text[at:end].split(delimiter)
                at = end
            if at >= stop:
                return fields, last + 1, stray
            at += len(delimiter)

    def _are_rows(self, first: int, last: int) -> bool:
        """Return whether the first and last line of a quoted value are rows, each with one quote."""
        return last > first and self._stands_alone(self._text(last)) and self._stands_alone(self._text(first))

    def _stands_alone(self, text: str) -> bool:
        if self._is_row is None or text.count(self._delimiter) < self._columns - 1:
            return False
        values = self._values(text)
        return len(values) == self._columns and self._is_row(values)

    def _values(self, text: str) -> list[str]:
        """Read a line alone; quotes that it does not close are parts of values."""
        at, stop = 0, len(text.rstrip("\r\n"))
        fields: list[str] = []
        while True:
            close = _closing(text, at + 1) if text.startswith('"', at) else -1
            if close >= 0 and _ends_value(text, close, self._delimiter):
                fields.append(text[at + 1 : close].replace('""', '"'))
                at = close + 1
            else:
                at = _literal(fields, text, at, stop, self._delimiter)
            if at >= stop:
                return fields
            at += len(self._delimiter)


def _closing(text: str, place: int) -> int:
    """Return the closing quote of a quoted value that begins before `place`; two quotes in a row are an escaped one."""
    while (found := text.find('"', place)) >= 0 and text.startswith('"', found + 1):
        place = found + 2
    return found


def _ends_value(text: str, quote: int, delimiter: str) -> bool:
    return text.startswith((delimiter, "\r", "\n"), quote + 1) or quote + 1 == len(text)


def _literal(fields: list[str], text: str, at: int, stop: int, delimiter: str) -> int:
    """Read a value whose quotes are parts of it, and return it with its end.

    In `"Big "lamp"` the outer quotes are not parts: a value that begins and ends with a quote is quoted, if the number
    of inner quotes is odd.
    """
    end = text.find(delimiter, at, stop)
    end = stop if end < 0 else end
    value = text[at:end]
    inner = value.strip()[1:-1]
    if value.startswith('"') and value.rstrip().endswith('"') and len(value) > 1 and inner.count('"') % 2 == 1:
        value = inner.replace('""', '"')
    fields.append(value)
    return end
