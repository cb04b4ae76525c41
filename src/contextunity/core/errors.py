"""The base class of all errors that ContextUnity packages raise on purpose, and the codec's error."""

from __future__ import annotations

from typing import Any

from betterproto2_codec.errors import CodecError, Violation

__all__ = ["CodecError", "ContextUnityError", "Violation"]


class ContextUnityError(Exception):
    """Base class. The text is for the person who can fix the cause.

    Errors can be pickled and copied, whatever their constructors take.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text and the attributes; unpickling does not call the constructor."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ContextUnityError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ContextUnityError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
