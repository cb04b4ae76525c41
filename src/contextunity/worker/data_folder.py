"""Errors of a data folder that cannot be created or written."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

from .errors import SettingsError

__all__ = ["data_folder_error", "naming_data_folder"]


def data_folder_error(folder: Path, error: OSError) -> SettingsError:
    """Return the error for a folder that cannot be created or written."""
    reason = (error.strerror or str(error)).lower()
    return SettingsError(
        [f"cannot write to the data folder {folder}: {reason}; choose another with CONTEXTWORKER_DATA_FOLDER"]
    )


@contextlib.contextmanager
def naming_data_folder(folder: Path) -> Generator[None, None, None]:
    """Convert errors about the data folder into a SettingsError; other errors pass unchanged.

    The folder is not checked beforehand: a worker whose modules store nothing needs none.

    Raises:
        SettingsError: the folder cannot be created or written.
    """
    try:
        yield
    except Exception as error:
        write_error = _write_error(folder) if _is_about(folder, error) else None
        if write_error is None:
            raise
        raise data_folder_error(folder, write_error) from error


def _is_about(folder: Path, error: BaseException | None) -> bool:
    """Whether the system denied access to a path below the folder, or to one of its parents."""
    folder = folder.absolute()
    while error is not None:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            refused = Path(error.filename).absolute()
            if refused.is_relative_to(folder) or folder.is_relative_to(refused):
                return True
        error = error.__cause__
    return False


def _write_error(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None
