"""Pack messages into google.protobuf.Any, and unpack them."""

from __future__ import annotations

from typing import Any as Anything
from typing import cast

import betterproto2

from ._binary import decode, encode
from ._classes import class_in_pool, full_name, message_class, registration, type_url
from .errors import CodecError

_ANY = "google.protobuf.Any"


def pack_any(message: betterproto2.Message) -> betterproto2.Message:
    """Pack a message under the type URL `type.googleapis.com/FULL_NAME`.

    Returns:
        An Any of the preferred tree, or of another loaded tree.

    Raises:
        CodecError: a value of the message is invalid.
    """
    any_class: Anything = message_class(_ANY)
    packed: betterproto2.Message = any_class(type_url=type_url(full_name(message)), value=encode(message))
    return packed


def unpack_any(packed: betterproto2.Message) -> betterproto2.Message:
    """Unpack the message in an Any.

    The class is searched for in the generated tree of the Any first, then in all other loaded trees. Only the part
    after the last slash of the type URL counts.

    Args:
        packed: an Any dataclass of any generated tree.

    Raises:
        CodecError: the value is not an Any, is empty or of an unknown type, or its bytes cannot be decoded.
    """
    _cls, name, pool = registration(type(packed))
    if name != _ANY:
        raise CodecError(f"expected a {_ANY}, got a {name}")
    given = cast("Anything", packed)
    _prefix, slash, inner = given.type_url.rpartition("/")
    if not slash or not inner:
        example = type_url("package.Message")
        raise CodecError(f"{given.type_url!r} is not a type URL, such as {example}", path="type_url", message_type=_ANY)
    return decode(class_in_pool(pool, inner) or message_class(inner), given.value)
