"""The payload of a token."""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, ValidationError

from ..errors import ContextUnityError


def _plain(value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("holds control characters or half a surrogate pair")
    return value


def _finite(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number")  # noqa: TRY004 - pydantic takes ValueErrors for its own
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError("is not a finite number")
    return seconds


_Text = Annotated[StrictStr, AfterValidator(_plain)]
_Seconds = Annotated[float, BeforeValidator(_finite)]


class ProjectBinding(BaseModel):
    """What a token is bound to: `project` to the schedules of that project, `platform` to those of no single one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["project", "platform"] = "project"
    project_id: _Text | None = None
    """Where given, only keys of this project verify the token."""


class ContextToken(BaseModel):
    """What a token says. One that is read may say more, which is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token_id: Annotated[_Text, Field(min_length=1)]
    """Names the token, for logs."""
    permissions: tuple[_Text, ...] = ()
    """What its bearer may do, such as `worker:execute`. What implies another is for who reads it."""
    provenance: tuple[_Text, ...] = ()
    """Who made it and handed it on, as `service:action`, oldest first."""
    allowed_tenants: tuple[_Text, ...] | None = None
    """Whose work its bearer starts and sees, by exact name; nobody's for None."""
    exp_unix: _Seconds | None = None
    """When it ends, in seconds since 1970; never for None."""
    nbf: _Seconds | None = None
    """When it begins, in seconds since 1970; it is good at once for None."""
    iat: _Seconds | _Text | None = None
    """When it was made, in seconds since 1970 or as its issuer writes times. Nothing is decided by it."""
    revocation_id: _Text | None = None
    """What its issuer revokes it by. Nothing is decided by it here."""
    user_id: _Text | None = None
    """The person it was made for."""
    agent_id: _Text | None = None
    """The program it was made for."""
    user_namespace: _Text | None = None
    """Where the user_id is from. Nothing is decided by it."""
    project_binding: ProjectBinding | None = None
    """The project it is bound to; bound to none, every project whose key verifies it."""


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
