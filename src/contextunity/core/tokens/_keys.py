"""Keys and their names. A key is of one algorithm, and so is its name, so that none is taken for one of the other."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ._errors import TokenKeyError

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
