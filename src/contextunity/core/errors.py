"""The base of every error that ContextUnity packages raise on purpose."""

from __future__ import annotations

__all__ = ["CodecError", "ContextUnityError"]


class ContextUnityError(Exception):
    """An error whose text is written for the person who can mend its cause."""


class CodecError(ContextUnityError, ValueError):
    """A value does not fit its message.

    Attributes:
        path: dotted path of the field in proto names, such as `products[3].price.units`; empty for the message itself.
        reason: what is wrong with it, without the path.
        message_type: full name of the outermost message, such as `contextunity.harvest.v1.ProductPage`.
    """

    def __init__(self, reason: str, *, path: str = "", message_type: str = "") -> None:
        self.path = path
        self.reason = reason
        self.message_type = message_type
        where = ": ".join(part for part in (message_type, path) if part)
        super().__init__(f"{where}: {reason}" if where else reason)
