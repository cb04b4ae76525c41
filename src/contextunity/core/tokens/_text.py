"""The text of a token: its three parts, and from the payload to what it says. Nothing else is ever raised than
TokenError, whatever the text."""

from __future__ import annotations

import base64
import json
from typing import Any

from pydantic import ValidationError

from ._errors import TokenError
from ._token import ContextToken

MAX_TOKEN_LENGTH = 16 * 1024
"""Characters of the longest token that is read or made."""


def join(kid: str, payload: bytes, signature: bytes) -> str:
    return f"{kid}.{payload.decode()}.{base64.b64encode(signature).decode()}"


def split(text: str | bytes) -> tuple[str, bytes, bytes]:
    """Returns the kid, the base64 text of the payload, and the signature."""
    if len(text) > MAX_TOKEN_LENGTH:
        raise TokenError("malformed", f"the token is longer than {MAX_TOKEN_LENGTH} characters")
    try:
        ascii_text = text.encode("ascii").decode() if isinstance(text, str) else text.decode("ascii")
        kid, payload, signature = ascii_text.rsplit(".", 2)
    except ValueError:
        raise TokenError("malformed", "the token does not read kid.payload.signature, in ASCII") from None
    if not kid or not all("!" <= character <= "~" for character in kid):
        raise TokenError("malformed", "the token's kid is empty or holds blanks or control characters")
    return kid, payload.encode(), _decode(signature, "signature", kid)


def write_payload(token: ContextToken) -> bytes:
    """Returns the base64 text of the payload, which is what is signed."""
    return base64.b64encode(token.model_dump_json(exclude_none=True).encode())


def read_payload(payload: bytes, kid: str) -> ContextToken:
    data = _decode(payload.decode(), "payload", kid)
    try:
        values = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenError("malformed", "the token's payload is not JSON with unique keys", kid=kid) from None
    try:
        return ContextToken.model_validate(values, extra="ignore")
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        text = f"the token's payload does not fit{f' at {where}' if where else ''}: {fault['msg']}"
        raise TokenError("malformed", text, kid=kid) from None


def _decode(text: str, what: str, kid: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    # Python also takes text that no encoder writes, such as stray bits before the padding.
    if not data or base64.b64encode(data).decode() != text:
        raise TokenError("malformed", f"the token's {what} is not standard padded base64", kid=kid)
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
