"""Messages into google.protobuf.Any and out of it."""

from __future__ import annotations

from typing import Any as Anything
from typing import cast

import betterproto2

from ._binary import decode, encode
from ._classes import class_in_pool, full_name, message_class, registration, type_url
from .errors import CodecError

_ANY = "google.protobuf.Any"


def pack_any(message: betterproto2.Message) -> betterproto2.Message:
    """Packs a message, under `type.googleapis.com/` and its full name.

    Returns:
        An Any of the preferred tree, else of one that is loaded.

    Raises:
        CodecError: a value of the message does not fit its field.
    """
    any_class: Anything = message_class(_ANY)
    packed: betterproto2.Message = any_class(type_url=type_url(full_name(message)), value=encode(message))
    return packed


def unpack_any(packed: betterproto2.Message) -> betterproto2.Message:
    """Unpacks the message in an Any.

    The class is looked for in the generated tree of the Any first, then in all others that are loaded. As usual, only
    what comes after the last slash of the type URL counts.

    Args:
        packed: an Any dataclass of any generated tree.

    Raises:
        CodecError: it is no Any, holds no message or one of an unknown type, or its bytes are not of that type.
    """
    _cls, name, pool = registration(type(packed))
    if name != _ANY:
        raise CodecError(f"expected a {_ANY}, got a {name}")
    given = cast("Anything", packed)
    _prefix, slash, inner = given.type_url.rpartition("/")
    if not slash or not inner:
        example = type_url("package.Message")
        raise CodecError(f"{given.type_url!r} is no type URL, such as {example}", path="type_url", message_type=_ANY)
    return decode(class_in_pool(pool, inner) or message_class(inner), given.value)
