"""The base of every error that ContextUnity packages raise on purpose, and the codec's own error."""

from __future__ import annotations

from betterproto2_codec.errors import CodecError, Violation

__all__ = ["CodecError", "ContextUnityError", "Violation"]


class ContextUnityError(Exception):
    """An error whose text is written for the person who can mend its cause."""
