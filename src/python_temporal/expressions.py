"""Values of the paths that id expressions and search attributes name, as their ProtoJSON form reads."""

from __future__ import annotations

import base64
from typing import Any

import betterproto2
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from .errors import ContractError

__all__ = ["optional", "search_attributes", "text"]


def text(value: Any, path: str, contract: str, before: str | None = None) -> str:
    """A field's value as text in an id.

    Args:
        value: string, integer, bool, enum or bytes; None where the field, or a message on the way to it, is absent.
        path: the field, for the error.
        contract: Temporal name of the workflow or update, for the error.
        before: first character of the literal text that follows in the id, empty where another value follows at once;
            it and `%` are percent-encoded, so that where the value ends can be told, and ids of unlike inputs are
            unlike. None for the last value of an id, which stays as it is.

    Raises:
        ContractError: the field is absent, or an empty string. Go's generator refuses to build an id from it too: ids
            of unlike inputs would be the same.
    """
    plain = _plain(value)
    if not plain:
        raise ContractError(f"{path} is not set, and the id is made of it", contract=contract, field=path)
    if before is None or ("%" not in plain and (not before or before not in plain)):
        return plain
    # In one pass: the character may be one that the encoding itself is written with.
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
    """Follows attribute names through messages any of which may be absent; None where one is."""
    for name in names:
        if message is None:
            return None
        message = getattr(message, name)
    return message


def search_attributes(*pairs: tuple[SearchAttributeKey[Any], Any]) -> TypedSearchAttributes:
    """Search attributes of the values that are there; absent messages and fields, and empty lists, are left out."""
    return TypedSearchAttributes(
        [SearchAttributePair(key, _indexed(value)) for key, value in pairs if value is not None and value != []]
    )


def _indexed(value: Any) -> Any:
    if isinstance(value, betterproto2.Enum):
        return value.proto_name or str(int(value))
    return [_indexed(item) for item in value] if _is_list(value) else value


def _is_list(value: object) -> bool:
    return isinstance(value, list)
