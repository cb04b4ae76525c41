"""Errors in the user's files or options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pb2


class UsageError(Exception):
    """The request cannot be fulfilled; the text is for its author."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Diagnostic:
    """One error in the files.

    Attributes:
        file: name of the proto file.
        line: line of the declaration, from 1; 0 if the request does not have it.
        text: the error, and what to do.
    """

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class Lines:
    """Finds the lines of declarations by their paths in the descriptor."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._lines: Mapping[tuple[int, ...], int] = {
            tuple(location.path): location.span[0] + 1 for location in file.source_code_info.location if location.span
        }

    def __getitem__(self, path: tuple[int, ...]) -> int:
        return self._lines.get(path, 0)


def raise_errors(errors: Iterable[Diagnostic]) -> None:
    """Raise all errors as one, sorted by place.

    Raises:
        UsageError: there is an error.
    """
    lines = [str(error) for error in sorted(set(errors))]
    if lines:
        raise UsageError("\n".join(lines))
