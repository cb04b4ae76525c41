"""Values for id expressions and search attributes, in the text form of ProtoJSON."""

from __future__ import annotations

import base64
from typing import Any

import betterproto2
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from .errors import ContractError

__all__ = ["optional", "search_attributes", "text"]


def text(value: Any, path: str, contract: str, before: str | None = None) -> str:
    """Return a field's value as text for an id.

    Args:
        value: string, integer, bool, enum or bytes; None if the field, or a message in its path, is absent.
        path: the field, for the error.
        contract: Temporal name of the workflow or update, for the error.
        before: first character of the literal text that follows in the id; empty if another value follows. It and `%`
            are percent-encoded, so that the end of the value is unambiguous, and different inputs have different ids.
            None for the last value of an id, which is not encoded.

    Raises:
        ContractError: the field is absent, or an empty string. Go's generator rejects that too: different inputs
            would have the same id.
    """
    plain = _plain(value)
    if not plain:
        raise ContractError(f"{path} is not set, but the workflow id contains it", contract=contract, field=path)
    if before is None or ("%" not in plain and (not before or before not in plain)):
        return plain
    # In one pass, because the character may be part of the encoding itself.
    return plain.translate(
        {ord(each): "".join(f"%{byte:02X}" for byte in each.encode()) for each in {"%", before} - {""}}
    )


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case betterproto2.Enum():
            return value.proto_name or str(int(value))
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return str(value)


def optional(message: Any, *names: str) -> Any:
    """Return a nested attribute of a message; None if any message in the path is absent."""
    for name in names:
        if message is None:
            return None
        message = getattr(message, name)
    return message


def search_attributes(*pairs: tuple[SearchAttributeKey[Any], Any]) -> TypedSearchAttributes:
    """Return the search attributes of present values; absent messages and fields, and empty lists, are omitted."""
    return TypedSearchAttributes(
        [SearchAttributePair(key, _indexed(value)) for key, value in pairs if value is not None and value != []]
    )


def _indexed(value: Any) -> Any:
    if isinstance(value, betterproto2.Enum):
        return value.proto_name or str(int(value))
    return [_indexed(item) for item in value] if _is_list(value) else value


def _is_list(value: object) -> bool:
    return isinstance(value, list)
