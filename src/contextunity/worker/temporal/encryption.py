"""Encrypts payloads with AES-256-GCM, in the format of Temporal's samples, for which other languages have codecs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from ..errors import SettingsError
from ..file_changes import FileChanges
from ..key_files import read_key_file
from .converter import KEY_ID
from .errors import PayloadKeyError

__all__ = ["ENCODING", "EncryptionCodec", "PayloadKeys", "read_payload_keys"]

_LOG = logging.getLogger(__name__)

ENCODING = b"binary/encrypted"
"""The `encoding` of an encrypted payload."""

_NONCE_BYTES = 12


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
    file = read_key_file(path, "payload_keys_file", "encrypts", or_empty="to write payloads in clear")
    return PayloadKeys(current=file.current, ciphers={key_id: AESGCM(key) for key_id, key in file.keys.items()})


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
        if not (at_once or self._changes.due()) or not self._changes.found():
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
