"""The error of the codec, with every invalid value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CodecError", "DescriptorConflictError", "Violation"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid value.

    Attributes:
        path: dotted path of the field in proto names, such as `products[3].price.units`; empty for the message itself.
        reason: what is wrong with it, without the path.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        """Return the path and the reason, or the reason alone."""
        return f"{self.path}: {self.reason}" if self.path else self.reason


class CodecError(ValueError):
    """A message cannot be encoded or decoded, or breaks its rules.

    Attributes:
        path: dotted path of the field in proto names, such as `products[3].price.units`; empty for the message itself.
        reason: what is wrong with it, without the path.
        message_type: full name of the outermost message, such as `contextunity.harvest.v1.ProductPage`.
        violations: every violation, or only the first if no others were searched for; never empty.
    """

    def __init__(self, reason: str, *, path: str = "", message_type: str = "") -> None:
        """Create an error with one violation; the text starts with the message type and the path."""
        self.path = path
        self.reason = reason
        self.message_type = message_type
        self.violations: tuple[Violation, ...] = (Violation(path, reason),)
        where = ": ".join(part for part in (message_type, path) if part)
        super().__init__(f"{where}: {reason}" if where else reason)

    @classmethod
    def of(cls, violations: Sequence[Violation], *, message_type: str = "") -> CodecError:
        """Create an error from one or more violations. With several, the reason lists all and the path is empty."""
        first, *more = violations
        if not more:
            return cls(first.reason, path=first.path, message_type=message_type)
        error = cls("; ".join(str(violation) for violation in violations), message_type=message_type)
        error.violations = tuple(violations)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text and the attributes; unpickling does not call the constructor."""
        return _restore, (type(self), self.args, self.__dict__)


class DescriptorConflictError(CodecError):
    """Two generated modules have different copies of one proto file, of which a process can only load one.

    Attributes:
        file: name of the proto file.
        modules: the module that is loaded, and the one that cannot be.
        differences: what differs, one text each; empty if it is none of messages, fields, values and methods.
    """

    def __init__(self, reason: str, *, file: str, modules: tuple[str, str], differences: tuple[str, ...]) -> None:
        """Create an error whose text is the reason."""
        super().__init__(reason)
        self.file, self.modules, self.differences = file, modules, differences


def _restore(kind: type[CodecError], args: tuple[Any, ...], attributes: dict[str, Any]) -> CodecError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
