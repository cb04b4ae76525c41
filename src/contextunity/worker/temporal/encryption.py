"""Encrypts payloads with AES-256-GCM, in the format of Temporal's samples, for which other languages have codecs."""

from __future__ import annotations

import base64
import binascii
import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from ..errors import SettingsError
from ..file_changes import FileChanges
from ..token_keys import read_secret_text
from .converter import KEY_ID
from .errors import PayloadKeyError

__all__ = ["ENCODING", "EncryptionCodec", "PayloadKeys", "read_payload_keys"]

_LOG = logging.getLogger(__name__)

ENCODING = b"binary/encrypted"
"""The `encoding` of an encrypted payload."""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_SECONDS_BETWEEN_LOOKS = 1.0
_HOW = "each key is 32 random bytes in Base64, such as `openssl rand -base64 32` prints"


@dataclass(frozen=True, kw_only=True)
class PayloadKeys:
    """A set of keys.

    Attributes:
        current: id of the key that encrypts; empty to only decrypt.
        ciphers: all keys by id, for decryption.
    """

    current: str
    ciphers: Mapping[str, AESGCM]


def read_payload_keys(path: Path) -> PayloadKeys:
    """Read a TOML file of keys: `current = "ID"`, and a table `[keys]` of Base64 by id.

    Raises:
        SettingsError: the file cannot be read or is invalid; all violations are reported at once, and no key is shown.
    """
    try:
        values: Mapping[str, Any] = tomllib.loads(read_secret_text(path))
    except tomllib.TOMLDecodeError:
        raise SettingsError([f"payload_keys_file = {str(path)!r}: not a TOML file that can be read"]) from None
    violations = [
        f"{name}: there is no such setting; known ones: current, keys"
        for name in sorted(values.keys() - {"current", "keys"})
    ]
    found, current = values.get("keys"), values.get("current")
    keys = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    ciphers = dict[str, AESGCM]()
    if not keys:
        violations.append(f'keys: is missing; add a table [keys] with lines such as "2026-01" = "…"; {_HOW}')
    for key_id, text in keys.items():
        key = _key(text)
        if key is None:
            violations.append(f"keys: {key_id!r} is not a key; {_HOW}")
        else:
            ciphers[key_id] = AESGCM(key)
    if not isinstance(current, str) or (current and current not in keys):
        listed = ", ".join(map(repr, keys)) or "none"
        violations.append(
            f"current: should name the key that encrypts, one of {listed}; or be empty, to write payloads in clear"
        )
    if violations:
        raise SettingsError([f"payload_keys_file = {str(path)!r}: {violation}" for violation in violations])
    return PayloadKeys(current=cast("str", current), ciphers=ciphers)


def _key(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == _KEY_BYTES else None


class EncryptionCodec(PayloadCodec):
    """Encrypts and decrypts payloads for the data converter. Payloads in clear are decoded unchanged.

    The file is reloaded when it changes. If it is then invalid, that is logged, and the previous keys stay in use.

    Args:
        path: file of keys, as for `read_payload_keys`.

    Raises:
        SettingsError: the file cannot be read or is invalid.
    """

    keeps_size = True
    """Encryption adds only a few bytes, so the server's limit can be checked before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changes = FileChanges(path)
        self._keys = read_payload_keys(path)
        self._look_at = monotonic() + _SECONDS_BETWEEN_LOOKS

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt payloads with the current key."""
        self._look()
        current = self._keys.current
        if not current:
            return list(payloads)
        cipher, metadata = self._keys.ciphers[current], {"encoding": ENCODING, KEY_ID: current.encode()}
        return [Payload(metadata=metadata, data=_encrypt(cipher, each.SerializeToString())) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt payloads, each with the key that it names.

        Raises:
            PayloadKeyError: the key is not in the file, or the bytes were not encrypted with it.
        """
        self._look()
        return [self._decrypt(each) if each.metadata.get("encoding") == ENCODING else each for each in payloads]

    def _decrypt(self, payload: Payload) -> Payload:
        key_id = payload.metadata.get(KEY_ID, b"").decode(errors="replace")
        cipher = self._keys.ciphers.get(key_id)
        if cipher is None:
            self._look(at_once=True)
            cipher = self._keys.ciphers.get(key_id)
        if cipher is None:
            known = ", ".join(map(repr, self._keys.ciphers))
            raise PayloadKeyError(
                f"the payload is encrypted with the key {key_id!r}; payload_keys_file has only {known}; add it there"
            )
        nonce, data = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, data, None))
        except (InvalidTag, DecodeError, ValueError):
            raise PayloadKeyError(
                f"the payload cannot be decrypted with the key {key_id!r} of payload_keys_file: it was encrypted with "
                "another key of that id, or changed since"
            ) from None

    def _look(self, *, at_once: bool = False) -> None:
        """Reload the file if it has changed."""
        now = monotonic()
        if now < self._look_at and not at_once:
            return
        self._look_at = now + _SECONDS_BETWEEN_LOOKS
        if not self._changes.found():
            return
        try:
            self._keys = read_payload_keys(self._path)
        except SettingsError as error:
            _LOG.error("the payload keys stay unchanged: %s", error)
        else:
            current = self._keys.current or "none"
            _LOG.info("reloaded the payload keys: %s encrypts of %s", current, ", ".join(self._keys.ciphers))


def _encrypt(cipher: AESGCM, data: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, None)
