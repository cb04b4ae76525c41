"""The errors of the runtime: a call or a class that does not fit its contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["ContractError", "DefinitionError"]


class ContractError(ValueError):
    """A call does not fit its contract; the text says which one and what to do.

    Attributes:
        contract: Temporal name of the workflow, activity, query, signal or update; empty where there is none.
        field: dotted path of the input field that is at fault, in proto names; empty where it is none.
        reason: what is wrong, without the contract's name.
    """

    def __init__(self, reason: str, *, contract: str = "", field: str = "") -> None:
        self.contract = contract
        self.field = field
        self.reason = reason
        super().__init__(f"{contract}: {reason}" if contract else reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the text and the attributes; the constructor is not called again."""
        return _restore, (type(self), self.args, self.__dict__)


class DefinitionError(TypeError):
    """A workflow class or an activity does not fit its contract; raised where it is defined.

    Attributes:
        name: qualified name of the class or function.
        faults: everything that is wrong with it, one text each.
    """

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.name = name
        self.faults = tuple(faults)
        super().__init__(f"{name}: {'; '.join(faults)}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the text and the attributes; the constructor is not called again."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
