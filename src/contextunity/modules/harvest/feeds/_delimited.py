"""Splits bytes of a CSV or TSV feed into records, with the exact place of each in the feed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from ..rejects import RejectReason
from ._model import MAX_ENTRY_BYTES

# The csv module's own limit is 128 KiB a value, for the whole process, and it loses its place in the record when it
# strikes: the rest of a long description would be read as rows. Our own bound on an entry takes over, so this one is
# only ever raised.
csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_ENTRY_BYTES))


@dataclass(slots=True)
class Record:
    """One record of a delimited feed."""

    start: int
    """Where it begins in the bytes that were given."""
    end: int
    """Where the next one begins."""
    fields: list[str]
    """Its values."""
    fault: RejectReason | None = None
    """Why it cannot be used."""
    detail: str = ""
    """The same for people."""


class _Lines:
    """Hands the csv module one line after the other and knows how far it has read.

    The csv module is what decides where a record ends, so that quotes are understood in one place only.
    """

    __slots__ = ("damaged", "dry", "end", "index", "lines")

    def __init__(self, data: bytes, *, final: bool) -> None:
        # Lone carriage returns end a line as well: the csv module reads them as the end of a record.
        self.lines = data.splitlines(keepends=True)
        if self.lines and not final and not self.lines[-1].endswith(b"\n"):
            self.lines.pop()
        self.index = 0
        self.end = 0
        self.dry = False
        self.damaged = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        index = self.index
        if index == len(self.lines):
            self.dry = True
            raise StopIteration
        line = self.lines[index]
        self.index = index + 1
        self.end += len(line)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.damaged = True
            return line.decode("utf-8", "surrogateescape")


def split_records(data: bytes, *, delimiter: str, columns: int, final: bool) -> Iterator[Record]:
    """Split bytes into records; blank lines are left out.

    Args:
        data: bytes that begin with a record.
        delimiter: what separates values.
        columns: how many values a good record has.
        final: whether the feed ends with `data`; else an incomplete record at the end is left alone.

    A record that has bytes that are not UTF-8 is read as Windows-1252, which is what spreadsheet programs write.
    """
    has_nul = b"\0" in data
    base = 0
    while True:
        lines = _Lines(data[base:] if base else data, final=final)
        reader = csv.reader(lines, delimiter=delimiter)
        start = 0
        resume = -1
        while True:
            lines.damaged = False
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                record = Record(base + start, base + lines.end, [], RejectReason.BAD_CSV, str(error))
            else:
                if lines.dry:
                    # The csv module asked for another line in the middle of a record: a quote is still open.
                    if not final:
                        return
                    resume = _resynchronise(data, base + start, delimiter=delimiter, columns=columns)
                    yield _unclosed(base + start, resume)
                    break
                if not fields:
                    start = lines.end
                    continue
                if lines.damaged:
                    fields = [_as_windows_1252(value) for value in fields]
                record = _check(Record(base + start, base + lines.end, fields), columns)
            if has_nul and b"\0" in data[record.start : record.end]:
                record.fault, record.detail = RejectReason.NUL_BYTE, "the row has a NUL character"
            start = lines.end
            yield record
        if resume >= len(data):
            return
        base = resume


def _check(record: Record, columns: int) -> Record:
    seen = len(record.fields)
    if seen != columns:
        record.fault = RejectReason.COLUMN_COUNT
        record.detail = f"the row has {seen} values, the header has {columns} columns"
    return record


def _as_windows_1252(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _unclosed(start: int, end: int) -> Record:
    return Record(start, end, [], RejectReason.UNCLOSED_QUOTE, "a quoted value is still open where the feed ends")


def _resynchronise(data: bytes, start: int, *, delimiter: str, columns: int) -> int:
    """Find where reading can go on after a record whose quote is never closed.

    Without this, one stray quote would swallow every row after it.
    """
    lines = data[start:].splitlines(keepends=True)
    place = start
    for index, line in enumerate(lines):
        if index and line.count(delimiter.encode()) >= columns - 1:
            row = next(csv.reader([line.decode("utf-8", "replace")], delimiter=delimiter), None)
            if row is not None and len(row) == columns:
                return place
        place += len(line)
    return len(data)
