"""The base class of all errors that ContextUnity packages raise on purpose, and the codec's error."""

from __future__ import annotations

from betterproto2_codec.errors import CodecError, Violation

__all__ = ["CodecError", "ContextUnityError", "Violation"]


class ContextUnityError(Exception):
    """Base class. The text is for the person who can fix the cause."""
