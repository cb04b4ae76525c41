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
        raise ValueError("contains control characters or half a surrogate pair")
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
    """What a token is bound to: `project` to the schedules of one project, `platform` to those of no single project."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["project", "platform"] = "project"
    project_id: _Text | None = None
    """If set, only keys of this project verify the token."""


class ContextToken(BaseModel):
    """The payload of a token. Unknown fields of a decoded token are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    token_id: Annotated[_Text, Field(min_length=1)]
    """Identifies the token in logs."""
    permissions: tuple[_Text, ...] = ()
    """What the bearer may do, such as `worker:execute`. The reader decides which permission implies another."""
    provenance: tuple[_Text, ...] = ()
    """Who created it and passed it on, as `service:action`, oldest first."""
    allowed_tenants: tuple[_Text, ...] | None = None
    """Tenants whose tasks the bearer may start and see, by exact name; None allows no tenant."""
    exp_unix: _Seconds | None = None
    """Expiry, in seconds since 1970; None never expires."""
    nbf: _Seconds | None = None
    """Start of validity, in seconds since 1970; None is valid immediately."""
    iat: _Seconds | _Text | None = None
    """Time of issue, in seconds since 1970 or in the issuer's format. Not checked."""
    revocation_id: _Text | None = None
    """The issuer's id for revocation. A keyring does not check it; a service with a list of revoked ids does."""
    user_id: _Text | None = None
    """The person it was issued for."""
    agent_id: _Text | None = None
    """The program it was issued for."""
    user_namespace: _Text | None = None
    """The namespace of `user_id`. Not checked."""
    project_binding: ProjectBinding | None = None
    """The project it is bound to. Without a binding, every project whose key verifies it."""


Reason = Literal[
    "malformed",
    "unknown_kid",
    "bad_signature",
    "wrong_project",
    "wrong_issuer",
    "wrong_audience",
    "expired",
    "not_yet_valid",
]
"""Why a token is rejected. The payload is read only after the signature was verified. Only JWTs have an issuer and an
audience."""


class TokenError(ContextUnityError):
    """A token is rejected. The text contains no part of the token.

    Attributes:
        reason: a stable word for programs.
        kid: the key that the token names, if it could be read: printable ASCII, not verified.
    """

    def __init__(self, reason: Reason, text: str, *, kid: str = "") -> None:
        self.reason: Reason = reason
        self.kid = kid
        super().__init__(text)


class TokenKeyError(ContextUnityError, ValueError):
    """Keys cannot be used. The text contains no part of a key except its kid.

    Attributes:
        faults: every fault; never empty.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


MAX_TOKEN_LENGTH = 16 * 1024
"""Maximum length of a token, in characters."""


def join(kid: str, payload: bytes, signature: bytes) -> str:
    return f"{kid}.{payload.decode()}.{base64.b64encode(signature).decode()}"


def split(text: str | bytes) -> tuple[str, bytes, bytes]:
    """Return the kid, the base64 text of the payload, and the signature."""
    if len(text) > MAX_TOKEN_LENGTH:
        raise TokenError("malformed", f"the token is longer than {MAX_TOKEN_LENGTH} characters")
    try:
        ascii_text = text.encode("ascii").decode() if isinstance(text, str) else text.decode("ascii")
        kid, payload, signature = ascii_text.rsplit(".", 2)
    except ValueError:
        raise TokenError("malformed", "the token is not of the form kid.payload.signature in ASCII") from None
    if not kid or not all("!" <= character <= "~" for character in kid):
        raise TokenError("malformed", "the token's kid is empty or contains spaces or control characters")
    return kid, payload.encode(), _decode(signature, "signature", kid)


def write_payload(token: ContextToken) -> bytes:
    """Return the base64 text of the payload, which is the text to sign."""
    return base64.b64encode(token.model_dump_json(exclude_none=True).encode())


def read_payload(payload: bytes, kid: str) -> ContextToken:
    data = _decode(payload.decode(), "payload", kid)
    try:
        values = strict_json(data)
    except ValueError:
        raise TokenError("malformed", "the token's payload is not JSON with unique keys", kid=kid) from None
    try:
        return ContextToken.model_validate(values, extra="ignore")
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        text = f"the token's payload is invalid{f' at {where}' if where else ''}: {fault['msg']}"
        raise TokenError("malformed", text, kid=kid) from None


def _decode(text: str, what: str, kid: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    # Python also accepts text that no encoder writes, such as stray bits before the padding.
    if not data or base64.b64encode(data).decode() != text:
        raise TokenError("malformed", f"the token's {what} is not standard padded base64", kid=kid)
    return data


def strict_json(data: bytes) -> Any:
    """Decode JSON in which no object has a key twice, and nothing is NaN or Infinity: readers differ in these.

    Raises:
        ValueError: it is not such JSON, or is nested too deep.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("duplicate key")
    return values


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
