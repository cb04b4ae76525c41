"""Read the keys that verify tokens, from the settings. Errors and logs never show a key."""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from contextunity.core.tokens import Keyring, TokenKeyError, ed25519_public_key

from .errors import SettingsError
from .settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["SHARED_KID", "is_jwt", "load_keyring", "read_secret_file", "read_secret_text"]

_LOG = logging.getLogger(__name__)

SHARED_KID = "*:hmac-001"
"""Kid of the single secret that settings can contain without a file of keys."""


def is_jwt(token: str) -> bool:
    """Whether a token has the form of a JWT: a ContextToken's kid has a colon, and a JWT has none anywhere."""
    return ":" not in token


_TABLES = ("hmac", "ed25519")


def load_keyring(settings: Settings) -> Keyring:
    """Read the secret and the file of keys from the settings.

    Raises:
        SettingsError: there is no key, or one is unreadable or invalid; all faults are reported at once.
    """
    violations = list[str]()
    hmac, ed25519 = _keys_file(settings.token_keys_file, violations) if settings.token_keys_file else ({}, {})
    secret = _shared_secret(settings, violations)
    if secret is not None and SHARED_KID in hmac:
        violations.append(f"{settings.token_keys_file}: {SHARED_KID} is set as token_secret too; set it in one place")
    if secret is not None:
        hmac[SHARED_KID] = secret
    if not violations and not hmac and not ed25519 and not settings.jwt_issuer:
        violations.append(
            "there is no key to verify tokens with; set CONTEXTWORKER_TOKEN_SECRET to the output of "
            "`contextworker token secret`, token_secret_file or token_keys_file to a file, or jwt_issuer to the "
            "issuer of JWTs (docs/security.md)"
        )
    try:
        keyring = Keyring(hmac=hmac, ed25519=ed25519)
    except TokenKeyError as error:
        raise SettingsError([*violations, *error.faults]) from None
    if violations:
        raise SettingsError(violations)
    return keyring


def read_secret_file(path: Path, setting: str = "") -> bytes:
    """Read a file that contains only one secret; whitespace around it is stripped.

    Args:
        path: the file.
        setting: name of the setting that names it, for errors; empty if there is none.

    Raises:
        SettingsError: the file cannot be read.
    """
    return _read(path, setting, secret=True).strip()


def read_secret_text(path: Path, setting: str) -> str:
    """Read a text file with secrets; see `read_secret_file`.

    Raises:
        SettingsError: the file cannot be read, or is not UTF-8.
    """
    try:
        return _read(path, setting, secret=True).decode()
    except UnicodeDecodeError:
        raise SettingsError([f"{setting}: {path}: not a text file in UTF-8"]) from None


def _shared_secret(settings: Settings, violations: list[str]) -> bytes | None:
    if settings.token_secret is not None and settings.token_secret_file is not None:
        violations.append("token_secret_file and CONTEXTWORKER_TOKEN_SECRET are both set; set only one")
    if settings.token_secret is not None:
        # The environment may not be UTF-8; these are its original bytes.
        return os.fsencode(settings.token_secret.get_secret_value())
    if settings.token_secret_file is None:
        return None
    try:
        return read_secret_file(settings.token_secret_file, "token_secret_file")
    except SettingsError as error:
        violations += error.faults
        return None


def _keys_file(path: Path, violations: list[str]) -> tuple[dict[str, bytes], dict[str, Ed25519PublicKey]]:
    hmac: dict[str, bytes] = {}
    ed25519: dict[str, Ed25519PublicKey] = {}
    try:
        values: Mapping[str, Any] = tomllib.loads(_read(path, "token_keys_file", secret=False).decode())
    except SettingsError as error:
        violations += error.faults
        return hmac, ed25519
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        violations.append(f"{path}: not a readable TOML file{_place(error)}")
        return hmac, ed25519
    for table in sorted(values.keys() - set(_TABLES)):
        violations.append(f"{path}: {table}: unknown table; put keys into [hmac] or [ed25519]")
    for table in _TABLES:
        keys = values.get(table, {})
        if not isinstance(keys, dict):
            violations.append(f'{path}: {table} is not a table of keys, such as "my_project:{table}-001" = "…"')
            continue
        for kid, text in cast("dict[str, object]", keys).items():
            if not isinstance(text, str):
                violations.append(f"{path}: {table}: {kid!r} is not a string; put the kid in quotes")
            elif table == "hmac":
                hmac[kid] = text.encode()
            else:
                try:
                    ed25519[kid] = ed25519_public_key(text)
                except TokenKeyError as error:
                    violations += [f"{path}: ed25519: {kid!r}: {violation}" for violation in error.faults]
    if hmac:
        _warn_if_readable(path)
    return hmac, ed25519


def _read(path: Path, setting: str, *, secret: bool) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        where = f"{setting}: {path}" if setting else str(path)
        raise SettingsError([f"{where}: cannot be read: {(error.strerror or 'unknown error').lower()}"]) from None
    if secret:
        _warn_if_readable(path)
    return data


def _warn_if_readable(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        _LOG.warning("%s contains a secret, and other users can access it (mode %o); set mode 600", path, mode)


def _place(error: ValueError) -> str:
    """Return the place of the error in the file; the rest of its text may quote a secret."""
    found = re.search(r"\(at [^()]*\)$", str(error))
    return f" {found[0]}" if found else ""
