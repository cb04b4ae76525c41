"""Keys and key names. Both contain the algorithm, so a key is never used for the other algorithm."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ._token import MAX_TOKEN_LENGTH, ContextToken, TokenError, TokenKeyError, join, read_payload, split, write_payload

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# cryptography is imported when an Ed25519 key is used: most deployments have none.

MIN_SECRET_BYTES = 32
"""Minimum length of an HMAC secret: a signature of 32 bytes is only as strong as its secret."""

ALL_PROJECTS = "*"
"""The project in the kid of a key that serves every project."""

_KID = re.compile(r"(?P<project>[!-~]+):(?P<algorithm>hmac|ed25519)-(?P<number>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Kid:
    project: str
    algorithm: str
    number: str

    @classmethod
    def read(cls, text: str) -> Kid | None:
        found = _KID.fullmatch(text)
        return cls(found["project"], found["algorithm"], found["number"]) if found else None

    @property
    def shared(self) -> str:
        """The kid of the same number for every project, used if the project has no key."""
        return f"{ALL_PROJECTS}:{self.algorithm}-{self.number}"


class Key(Protocol):
    @property
    def algorithm(self) -> str: ...

    @property
    def material(self) -> bytes:
        """The bytes that identify the key."""
        ...

    def holds(self, payload: bytes, signature: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class HmacKey:
    material: bytes = field(repr=False)
    algorithm = "hmac"

    def sign(self, payload: bytes) -> bytes:
        return hmac.digest(self.material, payload, "sha256")

    def holds(self, payload: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(payload), signature)


@dataclass(frozen=True, slots=True)
class Ed25519Key:
    key: Ed25519PublicKey
    algorithm = "ed25519"

    @property
    def material(self) -> bytes:
        return self.key.public_bytes_raw()

    def holds(self, payload: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, payload)
        except InvalidSignature:
            return False
        return True


def secret_fault(kid: str, secret: bytes) -> str | None:
    """Return what is wrong with a secret, without showing it; None if it is usable."""
    if len(secret) >= MIN_SECRET_BYTES:
        return None
    return (
        f"the secret of {kid} has {len(secret)} bytes, and needs {MIN_SECRET_BYTES}; "
        "create one with `contextworker token secret`"
    )


def ed25519_public_key(text: str) -> Ed25519PublicKey:
    """Read a public key: PEM, or its 32 raw bytes in base64.

    Raises:
        TokenKeyError: the text is not an Ed25519 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise TokenKeyError(["got a private key; give its public key instead"])
    try:
        if "-----BEGIN" not in text:
            return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))
        key = load_pem_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise TokenKeyError(["not a public key: neither PEM nor 32 bytes in base64"]) from None
    if not isinstance(key, Ed25519PublicKey):
        raise TokenKeyError([f"a key of another algorithm than Ed25519: {type(key).__name__.strip('_')}"])
    return key


def ed25519_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a private key in PEM, without a password.

    Raises:
        TokenKeyError: the text is not an Ed25519 private key, or needs a password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise TokenKeyError(["the private key has a password; remove the password"]) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TokenKeyError(["not a private key in PEM"]) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TokenKeyError([f"a key of another algorithm than Ed25519: {type(key).__name__.strip('_')}"])
    return key


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedToken:
    """A token that was valid when it was verified.

    Attributes:
        token: the payload.
        kid: the key that the token names.
        project_id: the project of the key, or of the binding. Empty if a key of all projects verified a token without a
            binding: its bearer can write any project into the kid.
    """

    token: ContextToken
    kid: str
    project_id: str


def mint(
    token: ContextToken, *, kid: str, secret: bytes | None = None, private_key: Ed25519PrivateKey | None = None
) -> str:
    """Sign a token.

    Args:
        token: the payload. Bind it to the kid's project if the verifier may have a key of all projects.
        kid: name of the key, `PROJECT:hmac-001` with a secret, `PROJECT:ed25519-001` with a private key.
        secret: for HMAC-SHA256, at least 32 bytes.
        private_key: for Ed25519; give either this or the secret.

    Raises:
        TokenKeyError: the key does not match the kid, the kid does not match the token's project, or the token is too
            long.
    """
    named = Kid.read(kid)
    if named is None or named.project == ALL_PROJECTS:
        raise TokenKeyError([f"kid {kid!r} must be of the form PROJECT:hmac-001 or PROJECT:ed25519-001"])
    if _bound_elsewhere(token, named):
        raise TokenKeyError(
            [f"kid {kid!r} is of another project than the token is bound to; use a key of that project"]
        )
    payload = write_payload(token)
    match named.algorithm, secret, private_key:
        case "hmac", bytes(), None:
            if fault := secret_fault(kid, secret):
                raise TokenKeyError([fault])
            signature = HmacKey(secret).sign(payload)
        case "ed25519", None, key if key is not None:
            signature = key.sign(payload)
        case _:
            raise TokenKeyError([f"kid {kid!r} needs exactly one key, of its algorithm {named.algorithm}"])
    text = join(kid, payload, signature)
    if len(text) > MAX_TOKEN_LENGTH:
        raise TokenKeyError([f"the token has {len(text)} characters; the maximum is {MAX_TOKEN_LENGTH}"])
    return text


class Keyring:
    """The keys that verify tokens.

    A key is named by its kid; `*:hmac-001` serves every project without its own `PROJECT:hmac-001`. To rotate a key,
    add the new one under another number: tokens of the old key stay valid until you remove it.
    """

    def __init__(
        self, *, hmac: Mapping[str, bytes] | None = None, ed25519: Mapping[str, Ed25519PublicKey] | None = None
    ) -> None:
        """Create a keyring from HMAC secrets and Ed25519 public keys, by kid.

        Raises:
            TokenKeyError: a kid does not match its algorithm, a secret is too short, or two projects share a key;
                `faults` lists all of it.
        """
        named: list[tuple[str, Key]] = [
            *((kid, HmacKey(secret)) for kid, secret in (hmac or {}).items()),
            *((kid, Ed25519Key(key)) for kid, key in (ed25519 or {}).items()),
        ]
        faults = [fault for kid, key in named if (fault := _kid_fault(kid, key))]
        faults += [fault for kid, secret in (hmac or {}).items() if (fault := secret_fault(kid, secret))]
        faults += _keys_of_two_projects(named)
        if faults:
            raise TokenKeyError(faults)
        self._keys = dict(named)
        # Verify a token of an unknown kid with one of these, so that it takes as long as for a known one.
        self._decoys: dict[str, Key] = {key.algorithm: key for _, key in named}
        self._decoys["hmac"] = HmacKey(secrets.token_bytes(MIN_SECRET_BYTES))

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.kids)})"

    @property
    def kids(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(self._keys)

    def mint(self, token: ContextToken, *, kid: str) -> str:
        """Sign a token with the HMAC secret that verifies tokens of the kid.

        Raises:
            TokenKeyError: there is no such secret; otherwise as for the function `mint`.
        """
        _, key = self._find(Kid.read(kid), kid)
        if not isinstance(key, HmacKey):
            raise TokenKeyError([f"no secret for kid {kid!r}; known keys: {', '.join(self.kids) or 'none'}"])
        return mint(token, kid=kid, secret=key.material)

    def verify(self, text: str | bytes, *, now: float | None = None) -> VerifiedToken:
        """Verify a token: its signature first, then its payload.

        Args:
            text: the token, without a scheme or surrounding spaces.
            now: seconds since 1970; the current time by default.

        Raises:
            TokenError: the token is rejected.
        """
        kid, payload, signature = split(text)
        named = Kid.read(kid)
        shared, key = self._find(named, kid)
        decoy = self._decoys.get(named.algorithm if named else "hmac", self._decoys["hmac"])
        holds = (key or decoy).holds(payload, signature)
        if named is None or key is None:
            raise TokenError("unknown_kid", "no key has the token's kid", kid=kid)
        if not holds:
            raise TokenError("bad_signature", "the token's signature is invalid", kid=kid)
        token = read_payload(payload, kid)
        if _bound_elsewhere(token, named):
            raise TokenError("wrong_project", "the token is bound to another project than its kid names", kid=kid)
        # No leeway: the clocks of issuer and verifier must agree.
        moment = time.time() if now is None else now
        if token.exp_unix is not None and token.exp_unix <= moment:
            raise TokenError("expired", "the token has expired", kid=kid)
        if token.nbf is not None and token.nbf > moment:
            raise TokenError("not_yet_valid", "the token is not valid yet", kid=kid)
        vouched = named.project if not shared or _binding(token) is not None else ""
        return VerifiedToken(token=token, kid=kid, project_id=vouched)

    def _find(self, named: Kid | None, kid: str) -> tuple[bool, Key | None]:
        """Return whether the key serves all projects, and the key."""
        if named is None or named.project == ALL_PROJECTS:
            return False, None
        own = self._keys.get(kid)
        return (False, own) if own is not None else (True, self._keys.get(named.shared))


def _binding(token: ContextToken) -> str | None:
    return token.project_binding.project_id if token.project_binding else None


def _bound_elsewhere(token: ContextToken, named: Kid) -> bool:
    return _binding(token) not in (None, named.project)


def _kid_fault(kid: str, key: Key) -> str | None:
    named = Kid.read(kid)
    if named is not None and named.algorithm == key.algorithm:
        return None
    return f"kid {kid!r} must be of the form PROJECT:{key.algorithm}-001, or *:{key.algorithm}-001 for every project"


def _keys_of_two_projects(named: list[tuple[str, Key]]) -> list[str]:
    """Report projects that share a key: whoever signs for one of them could sign for the other."""
    first, faults = dict[bytes, str](), list[str]()
    for kid, key in named:
        other = first.setdefault(key.material, kid)
        if other.rpartition(":")[0] != kid.rpartition(":")[0]:
            faults.append(
                f"{other} and {kid} have the same key; give each its own, or use one key for all projects under *"
            )
    return faults
