"""Keys and their names. A key is of one algorithm, and so is its name, so that none is taken for one of the other."""

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

# cryptography is imported where an Ed25519 key is used: most deployments have none.

MIN_SECRET_BYTES = 32
"""Bytes of the shortest HMAC secret: a signature of 32 bytes is worth no more than the secret behind it."""

ALL_PROJECTS = "*"
"""Stands for the project in the kid of a key that serves every project."""

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
        """The kid of the key that serves every project in its place."""
        return f"{ALL_PROJECTS}:{self.algorithm}-{self.number}"


class Key(Protocol):
    @property
    def algorithm(self) -> str: ...

    @property
    def material(self) -> bytes:
        """What tells the key from others."""
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
    """Says what is wrong with a secret, without showing it."""
    if len(secret) >= MIN_SECRET_BYTES:
        return None
    return (
        f"the secret of {kid} has {len(secret)} bytes, and needs {MIN_SECRET_BYTES}; "
        "`contextworker token secret` prints a good one"
    )


def ed25519_public_key(text: str) -> Ed25519PublicKey:
    """Reads a public key: PEM, or its 32 raw bytes in base64.

    Raises:
        TokenKeyError: it is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise TokenKeyError(["a private key stands where its public key belongs"])
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
    """Reads a private key in PEM, without a password.

    Raises:
        TokenKeyError: it is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise TokenKeyError(["the private key has a password; only one without can be read"]) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TokenKeyError(["not a private key in PEM"]) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TokenKeyError([f"a key of another algorithm than Ed25519: {type(key).__name__.strip('_')}"])
    return key


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedToken:
    """A token that was good when it was verified.

    Attributes:
        token: what it says.
        kid: the key that it names.
        project_id: the project that vouches for it: that of the key, or that of the binding. Empty where a key of all
            projects verified a token that is bound to none: its bearer may write any project into the kid.
    """

    token: ContextToken
    kid: str
    project_id: str


def mint(
    token: ContextToken, *, kid: str, secret: bytes | None = None, private_key: Ed25519PrivateKey | None = None
) -> str:
    """Signs a token.

    Args:
        token: what it says. Bind it to the kid's project where the verifier may hold a key of all projects.
        kid: the key's name, `PROJECT:hmac-001` with a secret, `PROJECT:ed25519-001` with a private key.
        secret: of HMAC-SHA256, 32 bytes or more.
        private_key: of Ed25519; either this or the secret.

    Raises:
        TokenKeyError: the key does not fit the kid, the kid not the token's project, or the token is too long.
    """
    named = Kid.read(kid)
    if named is None or named.project == ALL_PROJECTS:
        raise TokenKeyError([f"kid {kid!r} should read PROJECT:hmac-001 or PROJECT:ed25519-001"])
    if _bound_elsewhere(token, named):
        raise TokenKeyError([f"kid {kid!r} is not of the project that the token is bound to"])
    payload = write_payload(token)
    match named.algorithm, secret, private_key:
        case "hmac", bytes(), None:
            if fault := secret_fault(kid, secret):
                raise TokenKeyError([fault])
            signature = HmacKey(secret).sign(payload)
        case "ed25519", None, key if key is not None:
            signature = key.sign(payload)
        case _:
            raise TokenKeyError([f"kid {kid!r} needs one key, and of its own algorithm"])
    text = join(kid, payload, signature)
    if len(text) > MAX_TOKEN_LENGTH:
        raise TokenKeyError([f"the token has {len(text)} characters; {MAX_TOKEN_LENGTH} are the most"])
    return text


class Keyring:
    """The keys that tokens are verified with.

    A key is named by its kid; `*:hmac-001` serves every project that has no `PROJECT:hmac-001` of its own. Several
    numbers side by side keep tokens of an old key good while a new one is brought in.
    """

    def __init__(
        self, *, hmac: Mapping[str, bytes] | None = None, ed25519: Mapping[str, Ed25519PublicKey] | None = None
    ) -> None:
        """Makes a keyring of HMAC secrets and of Ed25519 public keys, by kid.

        Raises:
            TokenKeyError: a kid is not of its algorithm, a secret is too short, or two projects have one key; all
                faults are named at once.
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
        # What an unknown kid is verified with, so that it takes as long as a known one.
        self._decoys: dict[str, Key] = {key.algorithm: key for _, key in named}
        self._decoys["hmac"] = HmacKey(secrets.token_bytes(MIN_SECRET_BYTES))

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.kids)})"

    @property
    def kids(self) -> tuple[str, ...]:
        """The names of its keys."""
        return tuple(self._keys)

    def mint(self, token: ContextToken, *, kid: str) -> str:
        """Signs a token with the HMAC secret that verifies tokens of the kid.

        Raises:
            TokenKeyError: there is none, or see `mint`.
        """
        _, key = self._find(Kid.read(kid), kid)
        if not isinstance(key, HmacKey):
            raise TokenKeyError(
                [f"no secret for kid {kid!r}; there are keys named {', '.join(self.kids) or 'nothing'}"]
            )
        return mint(token, kid=kid, secret=key.material)

    def verify(self, text: str | bytes, *, now: float | None = None) -> VerifiedToken:
        """Verifies a token: its signature first, then what it says.

        Args:
            text: the token, without a scheme or blanks around it.
            now: seconds since 1970; the present unless given.

        Raises:
            TokenError: the token is not good.
        """
        kid, payload, signature = split(text)
        named = Kid.read(kid)
        shared, key = self._find(named, kid)
        decoy = self._decoys.get(named.algorithm if named else "hmac", self._decoys["hmac"])
        holds = (key or decoy).holds(payload, signature)
        if named is None or key is None:
            raise TokenError("unknown_kid", "no key has the kid that the token names", kid=kid)
        if not holds:
            raise TokenError("bad_signature", "the token's signature does not hold", kid=kid)
        token = read_payload(payload, kid)
        if _bound_elsewhere(token, named):
            raise TokenError("wrong_project", "the token is bound to another project than its kid names", kid=kid)
        # One clock, and no leeway for others at either end.
        moment = time.time() if now is None else now
        if token.exp_unix is not None and token.exp_unix <= moment:
            raise TokenError("expired", "the token has expired", kid=kid)
        if token.nbf is not None and token.nbf > moment:
            raise TokenError("not_yet_valid", "the token is not good yet", kid=kid)
        vouched = named.project if not shared or _binding(token) is not None else ""
        return VerifiedToken(token=token, kid=kid, project_id=vouched)

    def _find(self, named: Kid | None, kid: str) -> tuple[bool, Key | None]:
        """Returns whether the key is one of all projects, and the key."""
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
    return f"kid {kid!r} should read PROJECT:{key.algorithm}-001, or *:{key.algorithm}-001 for every project"


def _keys_of_two_projects(named: list[tuple[str, Key]]) -> list[str]:
    """Says which projects have one key: who signs for one of them could then sign for the other."""
    first, faults = dict[bytes, str](), list[str]()
    for kid, key in named:
        other = first.setdefault(key.material, kid)
        if other.rpartition(":")[0] != kid.rpartition(":")[0]:
            faults.append(f"{other} and {kid} have the same key; give each its own, or all projects one under *")
    return faults
