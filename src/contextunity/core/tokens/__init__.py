"""ContextTokens: the permissions and tenants of a caller, signed by a project.

The format is `kid.payload.signature`. The kid is the name of the key, such as `my_project:hmac-001`; payload and
signature are standard padded base64. The signature covers the base64 text of the payload, and not the kid.
"""

from __future__ import annotations

from ._keyring import MIN_SECRET_BYTES, Keyring, VerifiedToken, ed25519_private_key, ed25519_public_key, mint
from ._token import MAX_TOKEN_LENGTH, ContextToken, ProjectBinding, Reason, TokenError, TokenKeyError, strict_json

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
    "strict_json",
]
