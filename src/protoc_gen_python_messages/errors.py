"""What is wrong with the user's files or options, in words for the person who wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pb2


class UsageError(Exception):
    """The request asks for something that cannot be done; the text is for the person who wrote it."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Diagnostic:
    """One reason why the files cannot be generated.

    Attributes:
        file: name of the proto file.
        line: line of the declaration, from 1; 0 where the request says nothing about it.
        text: what is wrong and what to do instead.
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
    """Raises all as one error, sorted by place.

    Raises:
        UsageError: there is an error.
    """
    lines = [str(error) for error in sorted(set(errors))]
    if lines:
        raise UsageError("\n".join(lines))
