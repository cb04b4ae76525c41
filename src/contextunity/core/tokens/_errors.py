"""What can be wrong with a token, and with the keys that should verify it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ..errors import ContextUnityError

Reason = Literal["malformed", "unknown_kid", "bad_signature", "wrong_project", "expired", "not_yet_valid"]
"""Why a token is not good. What it says is only looked at once its signature holds."""


class TokenError(ContextUnityError):
    """A token is not good. The text holds nothing of the token.

    Attributes:
        reason: a stable word for programs.
        kid: the key that the token names, where it could be read: printable ASCII that anybody may have written.
    """

    def __init__(self, reason: Reason, text: str, *, kid: str = "") -> None:
        self.reason: Reason = reason
        self.kid = kid
        super().__init__(text)


class TokenKeyError(ContextUnityError, ValueError):
    """Keys cannot be used. The text holds nothing of a key but its kid.

    Attributes:
        faults: all that is wrong; never empty.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))
