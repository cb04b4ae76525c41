"""What is told where the data folder cannot be written to."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

from .errors import SettingsError

__all__ = ["naming_the_folder", "unusable"]


def unusable(folder: Path, error: OSError) -> SettingsError:
    """The error for a folder that cannot be made, or not be written to."""
    reason = (error.strerror or str(error)).lower()
    return SettingsError(
        [f"cannot write to the data folder {folder}: {reason}; choose another with CONTEXTWORKER_DATA_FOLDER"]
    )


@contextlib.contextmanager
def naming_the_folder(folder: Path) -> Generator[None, None, None]:
    """Names the setting where what is done here fails because of the folder; other errors pass as they are.

    The folder is not tried beforehand: a worker whose modules keep nothing needs none.

    Raises:
        SettingsError: the folder cannot be made, or not be written to.
    """
    try:
        yield
    except Exception as error:
        fault = _fault(folder) if _is_about(folder, error) else None
        if fault is None:
            raise
        raise unusable(folder, fault) from error


def _is_about(folder: Path, error: BaseException | None) -> bool:
    """Says whether the system refused a path below the folder, or one on the way to it."""
    folder = folder.absolute()
    while error is not None:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            refused = Path(error.filename).absolute()
            if refused.is_relative_to(folder) or folder.is_relative_to(refused):
                return True
        error = error.__cause__
    return False


def _fault(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None
