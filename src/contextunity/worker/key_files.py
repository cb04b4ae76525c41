"""Files of secret keys by id, which are shared by processes and rotated: one key is current, all others still work."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import SettingsError
from .token_keys import read_secret_text

__all__ = ["KeyFile", "make_key_file", "read_key_file"]

_KEY_BYTES = 32
_HOW = "each key is 32 random bytes in Base64, such as `openssl rand -base64 32` prints"


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """A set of keys.

    Attributes:
        current: id of the key for what is written now; empty for none.
        keys: all keys by id, for what was written before.
    """

    current: str
    keys: Mapping[str, bytes]


def read_key_file(path: Path, setting: str, verb: str, *, or_empty: str = "") -> KeyFile:
    """Read a TOML file of keys: `current = "ID"`, and a table `[keys]` of Base64 by id.

    Args:
        path: the file.
        setting: name of the setting that names it, for errors.
        verb: what the current key does, for errors.
        or_empty: what an empty `current` is for, for errors; without it, there must be a current key.

    Raises:
        SettingsError: the file cannot be read or is invalid; all violations are reported at once, and no key is shown.
    """
    try:
        values: Mapping[str, Any] = tomllib.loads(read_secret_text(path, setting))
    except tomllib.TOMLDecodeError:
        raise SettingsError([f"{setting} = {str(path)!r}: not a TOML file that can be read"]) from None
    violations = [
        f"{name}: there is no such setting; known ones: current, keys"
        for name in sorted(values.keys() - {"current", "keys"})
    ]
    found, current = values.get("keys"), values.get("current")
    texts = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    keys = dict[str, bytes]()
    if not texts:
        violations.append(f'keys: is missing; add a table [keys] with lines such as "2026-01" = "…"; {_HOW}')
    for key_id, text in texts.items():
        key = _key(text)
        if key is None:
            violations.append(f"keys: {key_id!r} is not a key; {_HOW}")
        else:
            keys[key_id] = key
    if not isinstance(current, str) or (current not in texts and not (or_empty and not current)):
        listed = ", ".join(map(repr, texts)) or "none"
        empty = f"; or be empty, {or_empty}" if or_empty else ""
        violations.append(f"current: should name the key that {verb}, one of {listed}{empty}")
    if violations:
        raise SettingsError([f"{setting} = {str(path)!r}: {violation}" for violation in violations])
    return KeyFile(current=cast("str", current), keys=keys)


def _key(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == _KEY_BYTES else None


def make_key_file(path: Path) -> None:
    """Make a file with one random key, which only this user may read, unless there is one.

    Of several processes that do so at once, one makes it, and all find the same whole file.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The id is random too: what was written with the key of another file is then told from what was changed.
    key_id = f"made-{secrets.token_hex(4)}"
    text = (
        f'current = "{key_id}"\n[keys]\n"{key_id}" = "{base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}"\n'
    )
    # A file that mkstemp makes has mode 0600.
    handle, whole = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(whole, path)
    finally:
        Path(whole).unlink()
