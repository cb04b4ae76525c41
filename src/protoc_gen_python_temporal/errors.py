"""Errors in the user's files or options, collected so that all are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Diagnostics", "Place", "UsageError"]


class UsageError(Exception):
    """The request cannot be fulfilled; the text is for its author."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Place:
    """A place in a proto file.

    Attributes:
        file: the file's name.
        line: line, from 1; 0 if the request does not have it.
    """

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class Diagnostics:
    """Errors, which stop the generation, and warnings, which do not."""

    errors: list[tuple[Place, str]] = field(default_factory=list[tuple[Place, str]])
    warnings: list[tuple[Place, str]] = field(default_factory=list[tuple[Place, str]])

    def error(self, place: Place, text: str) -> None:
        """Add an error."""
        self.errors.append((place, text))

    def warning(self, place: Place, text: str) -> None:
        """Add a warning."""
        self.warnings.append((place, text))

    def raise_errors(self) -> None:
        """Raises: UsageError: there are errors; its text lists them by place."""
        if self.errors:
            raise UsageError("\n".join(f"{place}: {text}" for place, text in sorted(self.errors)))
