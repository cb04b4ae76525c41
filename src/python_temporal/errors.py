"""Errors of the runtime: a call or a class does not match its contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["ContractError", "DefinitionError"]


class ContractError(ValueError):
    """A call does not match its contract; the text names the contract, and says what to do.

    Attributes:
        contract: Temporal name of the workflow, activity, query, signal or update; empty for none.
        field: dotted path of the invalid input field, in proto names; empty for none.
        reason: the error without the contract's name.
    """

    def __init__(self, reason: str, *, contract: str = "", field: str = "") -> None:
        self.contract = contract
        self.field = field
        self.reason = reason
        super().__init__(f"{contract}: {reason}" if contract else reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text and the attributes; the constructor is not called again."""
        return _restore, (type(self), self.args, self.__dict__)


class DefinitionError(TypeError):
    """A workflow class or an activity does not match its contract; raised at its definition.

    Attributes:
        name: qualified name of the class or function.
        faults: all its errors, one text each.
    """

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.name = name
        self.faults = tuple(faults)
        super().__init__(f"{name}: {'; '.join(faults)}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text and the attributes; the constructor is not called again."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
