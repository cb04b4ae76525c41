"""Settings of tokens that others issue (JWTs), and of lists of revoked tokens; `Settings` has them all.

They have a file of their own because `settings.py` would be too long; read them as part of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["IDENTITY_VARIABLES", "IdentitySettings", "JwtClaims", "identity_violations", "is_loopback"]

IDENTITY_VARIABLES: Mapping[str, str] = {
    "CONTEXTWORKER_JWT_AUDIENCE": "jwt_audience",
    "CONTEXTWORKER_JWT_ISSUER": "jwt_issuer",
    "CONTEXTWORKER_JWT_JWKS_FILE": "jwt_jwks_file",
    "CONTEXTWORKER_JWT_JWKS_GRACE": "jwt_jwks_grace",
    "CONTEXTWORKER_JWT_JWKS_MAX_AGE": "jwt_jwks_max_age",
    "CONTEXTWORKER_JWT_JWKS_URL": "jwt_jwks_url",
    "CONTEXTWORKER_JWT_LEEWAY": "jwt_leeway",
    "CONTEXTWORKER_REVOKED_TOKENS_FILE": "revoked_tokens_file",
    "CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL": "revoked_tokens_redis_url",
}
"""Environment variables, with their settings."""


class JwtClaims(BaseModel):
    """Which claims of a JWT say what its bearer may do. Of the names of a claim, the first that a token has counts.

    A name is that of a claim, such as `https://example.com/tenants`, or a path to one in objects, such as
    `realm_access.roles`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    permissions: tuple[str, ...] = ("permissions", "scope")
    """Claims of permissions, which also count for the scopes of units: a list, or a text with spaces between them."""
    tenants: tuple[str, ...] = ("allowed_tenants", "tenants")
    """Claims of tenants: a list, or a text that is one tenant."""
    token_id: tuple[str, ...] = ("jti", "sub")
    """Claims of the token's id, in the audit log and in lists of revoked tokens."""
    principal: tuple[str, ...] = ("sub", "client_id")
    """Claims of the caller's name in logs."""
    project: tuple[str, ...] = ("project_id",)
    """Claims of the only project whose schedules the caller sees and changes; without it, those of all projects."""
    grants: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Permissions by the value of a permission claim that stands for them, such as the name of a role."""


class IdentitySettings(BaseModel):
    """The settings."""

    jwt_issuer: str = Field(default="", max_length=1000)
    """Issuer of JWTs that are accepted beside ContextTokens, exactly as in their claim `iss`; JWTs are rejected unless
    given. Environment: CONTEXTWORKER_JWT_ISSUER."""
    jwt_audience: tuple[str, ...] = ()
    """Audiences, of which the claim `aud` must contain one. Environment: CONTEXTWORKER_JWT_AUDIENCE, separated by
    commas or spaces."""
    jwt_jwks_file: Path | None = None
    """File of the issuer's public keys, a JWK set; it is read again when it changes. Set this or `jwt_jwks_url`.
    Environment: CONTEXTWORKER_JWT_JWKS_FILE."""
    jwt_jwks_url: str = ""
    """https URL of the same; http only on this machine. Environment: CONTEXTWORKER_JWT_JWKS_URL."""
    jwt_jwks_max_age: float = Field(default=300.0, ge=10, le=86_400)
    """Seconds after which keys are fetched again, or earlier if the answer's Cache-Control says so.
    Environment: CONTEXTWORKER_JWT_JWKS_MAX_AGE."""
    jwt_jwks_grace: float = Field(default=3600.0, ge=0, le=604_800)
    """Seconds for which keys stay in use after that, if the URL does not answer.
    Environment: CONTEXTWORKER_JWT_JWKS_GRACE."""
    jwt_leeway: float = Field(default=30.0, ge=0, le=300)
    """Seconds by which the issuer's clock may differ. Environment: CONTEXTWORKER_JWT_LEEWAY."""
    jwt_claims: JwtClaims = JwtClaims()
    """Claims that permissions and tenants come from. In the file: `[jwt_claims]`."""
    revoked_tokens_file: Path | None = None
    """File of ids of revoked tokens, one a line; it is read again when it changes. While it cannot be read, calls end
    as UNAVAILABLE. Environment: CONTEXTWORKER_REVOKED_TOKENS_FILE."""
    revoked_tokens_redis_url: SecretStr | None = None
    """Redis with the deployed system's keys `contextunity:revoked:ID`, as redis://host:6379/0, rediss:// or unix://.
    While it does not answer, calls end as UNAVAILABLE. Environment only: CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL."""

    @property
    def has_revocations(self) -> bool:
        """Whether there is a list of revoked tokens."""
        return self.revoked_tokens_file is not None or self.revoked_tokens_redis_url is not None


def identity_violations(settings: IdentitySettings) -> list[str]:
    """What of these settings does not go together."""
    url, file = settings.jwt_jwks_url, settings.jwt_jwks_file
    if not settings.jwt_issuer:
        given = {"jwt_audience": settings.jwt_audience, "jwt_jwks_file": file, "jwt_jwks_url": url}
        return [f"{name} needs jwt_issuer, the issuer of the JWTs to accept" for name, value in given.items() if value]
    violations = list[str]()
    if not settings.jwt_audience:
        violations.append("jwt_issuer needs jwt_audience: tokens that the issuer makes for other services are not ours")
    if (not url) == (file is None):
        violations.append("jwt_issuer needs its keys: set jwt_jwks_file or jwt_jwks_url, and only one of them")
    if url and not _is_protected(url):
        violations.append(
            f"jwt_jwks_url = {url!r}: should be an https:// URL without a user, or http:// on this machine: who can "
            "change the keys on their way can make tokens"
        )
    return violations


def _is_protected(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, has_user = parts.hostname or "", parts.username is not None
        _ = parts.port
    except ValueError:
        return False
    return bool(host) and not has_user and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on; of names, only localhost counts."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
