"""The payload of a token."""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr


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
