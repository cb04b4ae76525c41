"""ContextTokens: what a caller may do and for which tenants, signed by the project that vouches for it.

A token reads `kid.payload.signature`. The kid is the key's name, `my_project:hmac-001`; payload and signature are
standard padded base64. The signature covers the base64 text of the payload, and not the kid.
"""

from __future__ import annotations

from ._errors import Reason, TokenError, TokenKeyError
from ._keyring import Keyring, VerifiedToken, mint
from ._keys import MIN_SECRET_BYTES, ed25519_private_key, ed25519_public_key
from ._text import MAX_TOKEN_LENGTH
from ._token import ContextToken, ProjectBinding

__all__ = [
    "MAX_TOKEN_LENGTH",
    "MIN_SECRET_BYTES",
    "ContextToken",
    "Keyring",
    "ProjectBinding",
    "Reason",
    "TokenError",
    "TokenKeyError",
    "VerifiedToken",
    "ed25519_private_key",
    "ed25519_public_key",
    "mint",
]
