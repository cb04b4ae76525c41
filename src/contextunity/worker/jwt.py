"""Verify JWTs of another issuer, and read from their claims what a ContextToken says.

joserfc verifies the signature, with the one algorithm that the type of the issuer's key allows; whatever a token's
header says besides its algorithm and kid is never used. Only then the claims are read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, cast

from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact
from pydantic import ValidationError

from contextunity.core.tokens import MAX_TOKEN_LENGTH, ContextToken, TokenError, VerifiedToken, strict_json

from .errors import SettingsError
from .identity_settings import IdentitySettings
from .jwks import ALGORITHMS, IssuerKeys, KeysFromFile, KeysFromUrl

__all__ = ["JwtVerifier", "open_jwt_verifier"]

_TYPES = frozenset({"", "jwt", "at+jwt"})
"""Types of tokens that are accepted. Issuers sign other statements with the same key, such as that a session ended."""


class _Registry(JWSRegistry):
    """The algorithms that we accept, without joserfc's warning that EdDSA has a new name."""

    max_header_length = max_payload_length = max_signature_length = MAX_TOKEN_LENGTH

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_REGISTRY = _Registry(strict_check_header=False)


@contextlib.asynccontextmanager
async def open_jwt_verifier(settings: IdentitySettings) -> AsyncGenerator[JwtVerifier]:
    """Open the verifier of JWTs, with the issuer's keys.

    Raises:
        SettingsError: the keys cannot be read or fetched, or there are none.
    """
    if settings.jwt_jwks_file is not None:
        yield JwtVerifier(KeysFromFile(settings.jwt_jwks_file), settings)
        return
    keys = KeysFromUrl(settings.jwt_jwks_url, max_age=settings.jwt_jwks_max_age, grace=settings.jwt_jwks_grace)
    async with keys:
        yield JwtVerifier(keys, settings)


class JwtVerifier:
    """Verifies JWTs.

    Args:
        keys: keys of the issuer.
        settings: issuer, audiences, leeway and names of claims.
    """

    def __init__(self, keys: IssuerKeys, settings: IdentitySettings) -> None:
        if not settings.jwt_issuer or not settings.jwt_audience:
            raise SettingsError(["JWTs need jwt_issuer and jwt_audience"])
        self._keys, self._claims, self._leeway = keys, settings.jwt_claims, settings.jwt_leeway
        self._issuer, self._audience = settings.jwt_issuer, frozenset(settings.jwt_audience)

    def verify(self, text: str | bytes, *, now: float | None = None) -> VerifiedToken:
        """Verify a JWT: its signature first, then its claims. It never waits.

        Args:
            text: the token, without a scheme or surrounding spaces.
            now: seconds since 1970; the current time by default.

        Returns:
            What a ContextToken with the same content would give. `revocation_id` is the claim `jti`.

        Raises:
            TokenError: the token is rejected.
            AuthenticationError: the issuer's keys cannot be fetched, or are being fetched.
        """
        if len(text) > MAX_TOKEN_LENGTH:
            raise TokenError("malformed", f"the token is longer than {MAX_TOKEN_LENGTH} characters")
        encoded = text.encode(errors="replace") if isinstance(text, str) else text
        header = _header(encoded)
        algorithm, kid = header["alg"], header.get("kid", "")
        if algorithm not in ALGORITHMS:
            raise TokenError("bad_signature", f"the token's alg is not one of {', '.join(ALGORITHMS)}", kid=kid)
        key = self._keys.find(algorithm, kid)
        if key is None:
            raise TokenError("unknown_kid", f"the issuer has no {algorithm} key with the token's kid", kid=kid)
        try:
            payload = deserialize_compact(encoded, key, registry=_REGISTRY).payload
        except (JoseError, ValueError):
            raise TokenError("bad_signature", "the token's signature is invalid", kid=kid) from None
        try:
            claims = strict_json(payload)
        except ValueError:
            claims = None
        if not isinstance(claims, dict):
            raise TokenError("malformed", "the token's claims are not a JSON object with unique keys", kid=kid)
        token = self._token(cast("dict[str, Any]", claims), kid)
        self._check_times(token, kid, time.time() if now is None else now)
        project = "" if token.project_binding is None else token.project_binding.project_id or ""
        return VerifiedToken(token=token, kid=kid, project_id=project)

    def _token(self, claims: Mapping[str, Any], kid: str) -> ContextToken:
        """Return the token that the claims stand for."""
        if claims.get("iss") != self._issuer:
            raise TokenError("wrong_issuer", "the token's iss is not the issuer that is accepted", kid=kid)
        if self._audience.isdisjoint(_texts(claims.get("aud"), "aud", kid)):
            raise TokenError("wrong_audience", "the token's aud has none of our audiences", kid=kid)
        names = self._claims
        _, jti = _first(claims, ("jti",))
        token_id, principal = _first(claims, names.token_id)[1], _first(claims, names.principal)[1]
        project, tenants = _first(claims, names.project)[1], _first(claims, names.tenants)
        if token_id is None:
            raise TokenError("malformed", f"the token has none of {', '.join(names.token_id)}, to name it by", kid=kid)
        values = {
            "token_id": token_id,
            "permissions": self._permissions(claims, kid),
            "allowed_tenants": None if tenants[1] is None else _texts(tenants[1], tenants[0], kid),
            "exp_unix": claims.get("exp"),
            "nbf": claims.get("nbf"),
            "iat": claims.get("iat"),
            "revocation_id": jti,
            "user_id": principal,
            "project_binding": None if project is None else {"kind": "project", "project_id": project},
        }
        try:
            return ContextToken.model_validate(values)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise TokenError("malformed", f"a claim is invalid, as {where}: {fault['msg']}", kid=kid) from None

    def _permissions(self, claims: Mapping[str, Any], kid: str) -> list[str]:
        name, value = _first(claims, self._claims.permissions)
        listed = value.split() if isinstance(value, str) else _texts(value, name, kid)
        return [each for text in listed for each in self._claims.grants.get(text, (text,))]

    def _check_times(self, token: ContextToken, kid: str, now: float) -> None:
        if token.exp_unix is None:
            raise TokenError("malformed", "the token has no exp: it would be valid for ever", kid=kid)
        if isinstance(token.iat, str):
            raise TokenError("malformed", "the token's iat is not a number", kid=kid)
        if token.exp_unix <= now - self._leeway:
            raise TokenError("expired", "the token has expired", kid=kid)
        if max(token.nbf or 0.0, token.iat or 0.0) > now + self._leeway:
            raise TokenError("not_yet_valid", "the token is not valid yet", kid=kid)


def _header(encoded: bytes) -> Mapping[str, str]:
    """Return alg, kid and typ of a JWT's header."""
    parts = encoded.split(b".")
    if len(parts) != 3 or not all(parts[:2]):
        raise TokenError("malformed", "the token is not of the form header.claims.signature")
    try:
        data = base64.b64decode(parts[0] + b"=" * (-len(parts[0]) % 4), altchars=b"-_", validate=True)
        values = strict_json(data)
    except (ValueError, binascii.Error):
        values = None
    if not isinstance(values, dict):
        raise TokenError("malformed", "the token's header is not a JSON object with unique keys, in base64url")
    header = cast("dict[str, Any]", values)
    named = {name: header[name] for name in ("alg", "kid", "typ") if isinstance(header.get(name, 0), str)}
    if "alg" not in named or len(named) < len(header.keys() & {"alg", "kid", "typ"}):
        raise TokenError("malformed", "the token's header has no alg, or a kid or typ that is not a text")
    if "crit" in header or "b64" in header:
        raise TokenError("malformed", "the token's header asks for extensions that are not supported")
    if named.get("typ", "").lower().removeprefix("application/") not in _TYPES:
        raise TokenError("malformed", "the token's typ is not JWT or at+jwt: it was made for another purpose")
    kid = named.get("kid", "")
    if not kid.isascii() or not kid.isprintable():
        raise TokenError("malformed", "the token's kid is not printable ASCII")
    return named


def _first(claims: Mapping[str, Any], names: Iterable[str]) -> tuple[str, Any]:
    """Return the first of the claims that a token has, with its name; None without any."""
    for name in names:
        value: Any = claims.get(name)
        if value is None and "." in name:
            value = claims
            for part in name.split("."):
                value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
        if value is not None:
            return name, value
    return "", None


def _texts(value: object, name: str, kid: str) -> list[str]:
    """Return a claim that is a list of texts, or one text; empty without it."""
    if value is None:
        return []
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    texts = [each for each in values if isinstance(each, str)]
    if len(texts) < len(values):
        raise TokenError("malformed", f"the token's {name} is neither a text nor a list of texts", kid=kid)
    return texts
