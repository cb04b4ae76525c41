"""Authenticates the states of stopped programs, which lie in Temporal's history until they are resumed.

Loading a snapshot makes an interpreter believe its bytes, so whoever can write to the history could otherwise have a
worker load anything, or change whose tools a program calls. A state is sealed with HMAC-SHA256 over all of its fields,
the version of its interpreter among them, and the workflow that it belongs to.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import replace
from pathlib import Path

from contextunity.gen.contextunity.code.v1 import ProgramState

from contextunity.core import codec
from contextunity.worker.key_files import KeyFile, make_key_file, read_key_file

from .errors import SnapshotUntrustedError

__all__ = ["SnapshotKeys", "open_snapshot_keys"]

_log = logging.getLogger(__name__)

SETTING = "CONTEXTWORKER_SNAPSHOT_KEY_FILE"
_MAGIC = b"cws1"
"""Begins each sealed snapshot; after it come the length of the key's id, the id, the MAC and the snapshot."""
_MAC_BYTES = hashlib.sha256().digest_size
_MAX_ID_BYTES = 255


class SnapshotKeys:
    """Seals and opens states of programs.

    Args:
        file: the keys.
        name: the file's name, for errors.
    """

    def __init__(self, file: KeyFile, name: str) -> None:
        self._file, self._name = file, name

    def seal(self, workflow_id: str, state: ProgramState) -> ProgramState:
        """Return the state with its snapshot sealed."""
        key_id = self._file.current.encode()
        head = _MAGIC + bytes([len(key_id)]) + key_id
        mac = _mac(self._file.keys[self._file.current], head, workflow_id, state)
        return replace(state, snapshot=head + mac + state.snapshot)

    def open(self, workflow_id: str, state: ProgramState) -> ProgramState:
        """Return the state with its snapshot as it was before `seal`.

        Raises:
            SnapshotUntrustedError: it was not sealed with one of these keys, or not for this workflow, or changed.
        """
        sealed = state.snapshot
        at = len(_MAGIC) + 1
        if not sealed.startswith(_MAGIC) or len(sealed) < at or len(sealed) < at + sealed[at - 1] + _MAC_BYTES:
            raise SnapshotUntrustedError(
                "the state of the program has no MAC, so it is not loaded; a worker without snapshot keys made it, or "
                "it was cut; run the program again"
            )
        head = sealed[: at + sealed[at - 1]]
        key_id = head[at:].decode(errors="replace")
        key = self._file.keys.get(key_id)
        if key is None:
            known = ", ".join(map(repr, self._file.keys))
            raise SnapshotUntrustedError(
                f"the state of the program is sealed with the key {key_id!r}, and {self._name} has only {known}, so it "
                f"is not loaded; give all workers one file of keys ({SETTING}), then reset the workflow to its last "
                "tool call, or run the program again"
            )
        opened = replace(state, snapshot=sealed[len(head) + _MAC_BYTES :])
        if not hmac.compare_digest(sealed[len(head) : len(head) + _MAC_BYTES], _mac(key, head, workflow_id, opened)):
            raise SnapshotUntrustedError(
                f"the state of the program was changed after a worker made it, or has another key of the id {key_id!r} "
                f"than {self._name}, so it is not loaded; give all workers one file of keys ({SETTING}), and find out "
                "who can write to the history if they have it; run the program again"
            )
        return opened


def _mac(key: bytes, head: bytes, workflow_id: str, state: ProgramState) -> bytes:
    owner = workflow_id.encode()
    # The length keeps an id from reaching into the state.
    return hmac.digest(key, head + len(owner).to_bytes(4, "big") + owner + codec.encode(state), "sha256")


def open_snapshot_keys(file: Path | None, folder: Path) -> SnapshotKeys:
    """Read the keys that the settings name, or make one in the data folder.

    Args:
        file: the file that `snapshot_key_file` names; None for one of this machine.
        folder: the data folder.

    Raises:
        SettingsError: the file cannot be read or is invalid.
    """
    path = file
    if path is None:
        path = folder / "code" / "snapshot-keys.toml"
        make_key_file(path)
        _log.info(
            "states of programs are sealed with the key in %s; workers with other data folders need the same file: set "
            "%s for all of them",
            path,
            SETTING,
        )
    keys = read_key_file(path, "snapshot_key_file", "seals")
    return SnapshotKeys(keys, str(path))
